-- The branch stands at the merge: merging -> merged.
-- inputs:  prefix, id, commit
-- checks:  this commit is the open intent, and the experiment is merging
-- writes:  the champion, the commit, the state; closes the intent
local prefix, id, commit = unpack(ARGV)
local intent = prefix .. 'intent'
local intended, to = unpack(call('HMGET', intent, 'experiment', 'commit'))
local refused, from, turn = refusal(prefix, id, 'merging')
if refused then return refused end
if intended ~= id or to ~= commit then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge ' .. commit)
end
call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', id)
call('HDEL', intent, 'experiment', 'parent', 'commit')
call('HSET', prefix .. 'verdict:' .. id, 'commit', commit)
call('HSET', row_of(prefix, id), 'note', '')
move(prefix, id, from, 'merged', turn, commit)
