-- The arbiter says no: scored -> discarded.
-- inputs:  prefix, id, verdict (JSON), reason
-- checks:  it is scored
-- writes:  the verdict and the state
local prefix, id, verdict, reason = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
call('HSET', prefix .. 'verdict:' .. id, 'verdict', verdict)
move(prefix, id, from, 'discarded', turn, reason, 'verdict', verdict)
