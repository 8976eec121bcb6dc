-- The champion moved under a measured candidate: scored | merging -> proposed, or -> stale when it happened too often.
-- inputs:  prefix, id, state it must be in, note, max_rebases
-- checks:  it is in that state; if it is merging, the open intent is its own
-- writes:  state, note, count; closes its intent; returns the new state
local prefix, id, state, note, max_rebases = unpack(ARGV)
local refused = refusal(prefix, id, state)
if refused then return refused end
local row, intent = row_of(prefix, id), prefix .. 'intent'
if state == 'merging' and call('HGET', intent, 'experiment') ~= id then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge')
end
local to = 'proposed'
if call('HINCRBY', row, 'rebases', 1) > tonumber(max_rebases) then to = 'stale' end
if state == 'merging' then call('DEL', intent) end
call('HDEL', row, 'verdict')
call('HSET', row, 'note', note)
move(prefix, id, to, note)
return to
