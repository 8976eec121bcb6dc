-- Have a commit of the branch measured as it stands: -> queued. Its turn is 0, since nothing can be judged before it.
-- inputs:  prefix, hypothesis (JSON), author, candidate (JSON), parent (the commit), meaning, champion ('*': any)
-- checks:  the champion is the one given, and no merge is under way: who asks has not slept since it looked; the commit has
--          no baseline yet, or one that merged long ago (the branch was set back to it) or did not count
-- writes:  the row, and its claim on the program if nobody has it; returns its id, or the id of the one there is
local prefix, hypothesis, author, candidate, parent, meaning, champion = unpack(ARGV)
local present = call('HGET', prefix .. 'champion', 'commit') or ''
if champion ~= '*' and (champion ~= present or call('HKEYS', prefix .. 'outbox')[1]) then
  return redis.error_reply('WRONGSTATE the champion has moved since ' .. parent .. ' was looked at')
end
local known = call('HGET', prefix .. 'baselines', parent)
if known then
  local past = call('ZSCORE', prefix .. 'state:discarded', known)
    or (call('ZSCORE', prefix .. 'state:merged', known) and present ~= parent)
  if not past then return tonumber(known) end
end
local id = call('INCR', prefix .. 'ids')
call('HSET', prefix .. 'baselines', parent, id)
call('ZADD', prefix .. 'lane:baseline', id, id)
call('HSET', row_of(prefix, id), 'lane', 'baseline', 'hypothesis', hypothesis, 'author', author, 'created_at', now(),
  'candidate', candidate, 'parent', parent, 'meaning', meaning)
call('HSETNX', prefix .. 'programs', meaning, id)
move(prefix, id, '', 'queued', 0, 'baseline', 'candidate', candidate)
return id
