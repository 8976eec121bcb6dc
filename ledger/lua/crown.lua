-- A baseline has its score: scored -> merged, and its commit is the champion.
-- inputs:  prefix, id, commit
-- checks:  it is scored, and the baseline of this commit; no merge is under way
-- writes:  the champion, the commit, the state
local prefix, id, commit = unpack(ARGV)
if call('HGET', prefix .. 'baselines', commit) ~= id then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is not the baseline of ' .. commit)
end
local other = call('HKEYS', prefix .. 'outbox')[1]
if other then return redis.error_reply('WRONGSTATE experiment #' .. other .. ' is being merged') end
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
count_decision(prefix)
call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', id)
call('HSET', prefix .. 'verdict:' .. id, 'commit', commit)
move(prefix, id, from, 'merged', turn, commit)
