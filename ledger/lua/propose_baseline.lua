-- Have a commit of the branch measured as it stands: -> queued. Its turn is 0, since nothing can be judged before it.
-- inputs:  prefix, hypothesis (JSON), author, candidate (JSON), parent (the commit), meaning
-- checks:  no merge is under way, which may have put this commit on the branch; it is not the champion; it has no baseline
--          yet, or one that merged long ago (the branch was set back to it) or did not count
-- writes:  the row, and its claim on the program if nobody has it; returns its id, or the id of the one there is
local prefix, hypothesis, author, candidate, parent, meaning = unpack(ARGV)
local known = call('HGET', prefix .. 'baselines', parent)
local other = call('HKEYS', prefix .. 'outbox')[1]
if other then return redis.error_reply('WRONGSTATE experiment #' .. other .. ' is being merged') end
local champion, experiment = unpack(call('HMGET', prefix .. 'champion', 'commit', 'experiment'))
if champion == parent then return tonumber(experiment) end
if known and not call('ZSCORE', prefix .. 'state:discarded', known)
  and not call('ZSCORE', prefix .. 'state:merged', known) then
  return tonumber(known)
end
local id = call('INCR', prefix .. 'ids')
call('HSET', prefix .. 'baselines', parent, id)
call('ZADD', prefix .. 'lane:baseline', id, id)
call('HSET', row_of(prefix, id), 'lane', 'baseline', 'hypothesis', hypothesis, 'author', author, 'created_at', now(),
  'candidate', candidate, 'parent', parent, 'meaning', meaning)
call('HSETNX', prefix .. 'programs', meaning, id)
move(prefix, id, '', 'queued', 0, 'baseline', 'candidate', candidate)
return id
