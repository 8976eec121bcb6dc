-- Have the champion's program run once more: -> queued. Its turn is 0, since nothing is judged before it.
-- inputs:  prefix, hypothesis (JSON), author, candidate (JSON), parent (the commit), meaning, champion (id of the experiment),
--          number (of repeats of that one that were asked for before)
-- checks:  no merge is under way; the champion is the one given; nobody has asked since, else returns nil
-- writes:  the row; returns its id
local prefix, hypothesis, author, candidate, parent, meaning, champion, number = unpack(ARGV)
local other = call('HKEYS', prefix .. 'outbox')[1]
if other or call('HGET', prefix .. 'champion', 'experiment') ~= champion then
  return redis.error_reply('WRONGSTATE experiment #' .. champion .. ' is not the champion, or not for long')
end
if call('ZCOUNT', prefix .. 'lane:repeat', champion, champion) ~= tonumber(number) then return false end
local id = call('INCR', prefix .. 'ids')
call('ZADD', prefix .. 'lane:repeat', champion, id)
call('HSET', row_of(prefix, id), 'lane', 'repeat', 'hypothesis', hypothesis, 'author', author, 'created_at', now(),
  'candidate', candidate, 'parent', parent, 'meaning', meaning)
move(prefix, id, '', 'queued', 0, 'repeat of #' .. champion, 'candidate', candidate)
return id
