-- A baseline has its score: scored -> merged, and its commit is the champion.
-- inputs:  prefix, id, commit
-- checks:  it is scored, and the baseline of this commit
-- writes:  the champion, the commit, the state
local prefix, id, commit = unpack(ARGV)
if call('HGET', prefix .. 'baselines', commit) ~= id then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is not the baseline of ' .. commit)
end
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', id)
call('HSET', prefix .. 'verdict:' .. id, 'commit', commit)
move(prefix, id, from, 'merged', turn, commit)
