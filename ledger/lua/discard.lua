-- The arbiter says no: scored -> discarded | within_noise.
-- inputs:  prefix, id, verdict (JSON), reason, state to go to
-- checks:  it is scored
-- writes:  the verdict and the state
local prefix, id, verdict, reason, to = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
call('HSET', prefix .. 'verdict:' .. id, 'verdict', verdict)
move(prefix, id, from, to, turn, reason, 'verdict', verdict)
