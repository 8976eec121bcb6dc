-- Have a commit of the branch measured as it stands: -> queued.
-- inputs:  prefix, hypothesis (JSON), author, candidate (JSON), parent (the commit), meaning
-- checks:  the commit has no baseline yet, or one that merged long ago (the branch was set back to it)
-- writes:  the row, and its claim on the program if nobody has it; returns its id, or the id of the one there is
local prefix, hypothesis, author, candidate, parent, meaning = unpack(ARGV)
local known = call('HGET', prefix .. 'baselines', parent)
if known then
  local merged = call('HGET', row_of(prefix, known), 'state') == 'merged'
  if not merged or call('HGET', prefix .. 'champion', 'commit') == parent then return tonumber(known) end
end
local id = call('INCR', prefix .. 'ids')
call('HSET', row_of(prefix, id), 'lane', 'baseline', 'hypothesis', hypothesis, 'author', author, 'created_at', now(),
  'candidate', candidate, 'parent', parent, 'meaning', meaning)
call('HSET', prefix .. 'baselines', parent, id)
call('HSETNX', prefix .. 'programs', meaning, id)
move(prefix, id, 'queued', 'baseline', 'candidate', candidate)
return id
