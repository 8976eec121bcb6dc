-- The branch stands at the merge: merging -> merged.
-- inputs:  prefix, id, commit
-- checks:  it is merging, and this commit is its open intent
-- writes:  the champion, the commit, the state; closes the intent
local prefix, id, commit = unpack(ARGV)
local refused = refusal(prefix, id, 'merging')
if refused then return refused end
local row, intent = row_of(prefix, id), prefix .. 'intent'
if call('HGET', intent, 'experiment') ~= id or call('HGET', intent, 'commit') ~= commit then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge ' .. commit)
end
call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', id, 'val_bpb', call('HGET', row, 'val_bpb'))
call('DEL', intent)
call('HSET', row, 'commit', commit, 'note', '')
move(prefix, id, 'merged', commit)
