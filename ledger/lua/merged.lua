-- The branch stands at the merge: merging -> merged.
-- inputs:  prefix, id, fence, holder, commit, intent (JSON)
-- checks:  the relay's lease is current; it is merging; its entry in the outbox is this intent
-- writes:  the champion, the commit, the state; takes the entry out of the outbox
local prefix, id, fence, holder, commit, intent = unpack(ARGV)
local stale = stale_relay(prefix, fence, holder)
if stale then return stale end
local refused = refusal(prefix, id, 'merging')
if refused then return refused end
local row, outbox = row_of(prefix, id), prefix .. 'outbox'
if call('HGET', outbox, id) ~= intent then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge ' .. commit)
end
call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', id, 'val_bpb', call('HGET', row, 'val_bpb'))
call('HDEL', outbox, id)
call('HSET', row, 'commit', commit, 'note', '')
move(prefix, id, 'merged', commit)
