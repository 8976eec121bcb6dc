-- A merge that does not land: merging -> proposed, or -> stale when that happened too often.
-- inputs:  prefix, id, fence, holder, note, max_rebases
-- checks:  the relay's lease is current; the outbox has an entry for it; whether it is merging: what somebody else put into
--          the outbox is no experiment's merge
-- writes:  takes the entry out of the outbox; state, note, count of the experiment; an event in any case
local prefix, id, fence, holder, note, max_rebases = unpack(ARGV)
local stale = stale_relay(prefix, fence, holder)
if stale then return stale end
local outbox = prefix .. 'outbox'
if call('HEXISTS', outbox, id) == 0 then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge')
end
local merging = not refusal(prefix, id, 'merging')
call('HDEL', outbox, id)
if merging then
  send_back(prefix, id, note, max_rebases)
else
  note_event(prefix, '', 'intent dropped', '#' .. id .. ': ' .. note)
end
