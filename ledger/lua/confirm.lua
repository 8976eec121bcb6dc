-- The arbiter wants to see that again: scored -> confirming.
-- inputs:  prefix, id, verdict (JSON), reason
-- checks:  it is scored
-- writes:  the verdict so far, and the state
local prefix, id, verdict, reason = unpack(ARGV)
local known = call('HEXISTS', prefix .. 'verdict:' .. id, 'commit')
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
if known == 1 then return redis.error_reply('WRONGSTATE experiment #' .. id .. ' was merged already') end
call('HSET', prefix .. 'verdict:' .. id, 'verdict', verdict)
move(prefix, id, from, 'confirming', turn, reason, 'verdict', verdict)
