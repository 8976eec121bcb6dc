-- The branch stands at the merge: merging -> merged.
-- inputs:  prefix, id, fence, holder, commit, intent (JSON)
-- checks:  its entry in the outbox is this intent; the relay's lease is current; whether the experiment is merging: an
--          intent may be delivered again, long after its merge
-- writes:  takes the entry out of the outbox; the champion, the commit, the state, or else an event
local prefix, id, fence, holder, commit, intent = unpack(ARGV)
local outbox = prefix .. 'outbox'
local intended = call('HGET', outbox, id)
local stale = stale_relay(prefix, fence, holder)
if stale then return stale end
if intended ~= intent then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge ' .. commit)
end
local refused, from, turn = refusal(prefix, id, 'merging')
call('HDEL', outbox, id)
if refused then
  note_event(prefix, '', 'intent dropped', '#' .. id .. ': it is not merging')
  return
end
count_decision(prefix)
call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', id)
call('HSET', prefix .. 'verdict:' .. id, 'commit', commit)
call('HSET', row_of(prefix, id), 'note', '')
move(prefix, id, from, 'merged', turn, commit)
