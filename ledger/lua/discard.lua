-- The arbiter says no: scored -> discarded | within_noise.
-- inputs:  prefix, id, verdict (JSON), reason, state to go to, decisions (when this one was thought out; '*': any)
-- checks:  nothing was decided since; it is scored
-- writes:  the verdict and the state
local prefix, id, verdict, reason, to, decisions = unpack(ARGV)
local late = overtaken(prefix, decisions)
if late then return late end
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
count_decision(prefix)
call('HSET', prefix .. 'verdict:' .. id, 'verdict', verdict)
move(prefix, id, from, to, turn, reason, 'verdict', verdict)
