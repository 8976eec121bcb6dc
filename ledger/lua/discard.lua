-- The arbiter says no: scored -> discarded.
-- inputs:  prefix, id, verdict (JSON), reason
-- checks:  it is scored
-- writes:  the verdict and the state
local prefix, id, verdict, reason = unpack(ARGV)
local refused = refusal(prefix, id, 'scored')
if refused then return refused end
call('HSET', row_of(prefix, id), 'verdict', verdict)
move(prefix, id, 'discarded', reason, 'verdict', verdict)
