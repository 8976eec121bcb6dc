-- A merge that does not land: merging -> proposed, or -> stale when that happened too often.
-- inputs:  prefix, id, fence, holder, note, max_rebases, earlier (measurements that are judged no more)
-- checks:  the outbox has an entry for it; the relay's lease is current; whether it is merging: what somebody else put into
--          the outbox is no experiment's merge
-- writes:  takes the entry out of the outbox; state, note, count of the experiment; an event in any case
local prefix, id, fence, holder, note, max_rebases, earlier = unpack(ARGV)
local outbox = prefix .. 'outbox'
local intended = call('HEXISTS', outbox, id) == 1
local stale = stale_relay(prefix, fence, holder)
if stale then return stale end
if not intended then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge')
end
local refused, from, turn = refusal(prefix, id, 'merging')
call('HDEL', outbox, id)
if refused then
  note_event(prefix, '', 'intent dropped', '#' .. id .. ': ' .. note)
else
  send_back(prefix, id, from, turn, note, max_rebases, earlier)
end
