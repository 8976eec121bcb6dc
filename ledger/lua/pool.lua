-- One more run of the champion has its score: scored -> pooled.
-- inputs:  prefix, id
-- checks:  it is scored, and a repeat
-- writes:  the state
local prefix, id = unpack(ARGV)
local of = call('ZSCORE', prefix .. 'lane:repeat', id)
if not of then return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is no repeat') end
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
move(prefix, id, from, 'pooled', turn, 'repeat of #' .. of)
