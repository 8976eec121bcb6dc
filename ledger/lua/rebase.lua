-- The champion moved under a measured candidate: scored | merging -> proposed, or -> stale when it happened too often.
-- inputs:  prefix, id, state it must be in, note, max_rebases
-- checks:  it is in that state; if it is merging, the open intent is its own
-- writes:  state, note, count; closes its intent; returns the new state
local prefix, id, state, note, max_rebases = unpack(ARGV)
local intent, verdict = prefix .. 'intent', prefix .. 'verdict:' .. id
local intended = call('HGET', intent, 'experiment')
local refused, from, turn = refusal(prefix, id, state)
if refused then return refused end
if state == 'merging' and intended ~= id then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has no open intent to merge')
end
local to = 'proposed'
if call('HINCRBY', verdict, 'rebases', 1) > tonumber(max_rebases) then to = 'stale' end
if state == 'merging' then call('HDEL', intent, 'experiment', 'parent', 'commit') end
call('HDEL', verdict, 'verdict')
call('HSET', row_of(prefix, id), 'note', note)
move(prefix, id, from, to, turn, note)
return to
