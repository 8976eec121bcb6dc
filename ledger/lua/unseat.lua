-- The machine has drifted: the champion's scores count no more. Its commit is measured as a baseline, as if it were new.
-- inputs:  prefix, id (of the experiment that made the champion), reason
-- checks:  it did; no merge is under way
-- writes:  takes the champion away; an event
local prefix, id, reason = unpack(ARGV)
local champion = prefix .. 'champion'
if call('HGET', champion, 'experiment') ~= id or call('HKEYS', prefix .. 'outbox')[1] then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is not the champion, or not for long')
end
call('HDEL', champion, 'commit', 'experiment')
note_event(prefix, '', 'drift', reason)
