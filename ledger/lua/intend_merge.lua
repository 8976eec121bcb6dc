-- The arbiter says yes, before it touches git: scored -> merging.
-- inputs:  prefix, id, verdict (JSON), parent, commit
-- checks:  no other intent is open; the champion is the parent; it is scored and was never merged
-- writes:  the intent, the verdict, the state
local prefix, id, verdict, parent, commit = unpack(ARGV)
local other = call('HGET', prefix .. 'intent', 'experiment')
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
if other then return redis.error_reply('WRONGSTATE experiment #' .. other .. ' is being merged') end
if call('HEXISTS', prefix .. 'verdict:' .. id, 'commit') == 1 then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' was merged already')
end
if call('HGET', prefix .. 'champion', 'commit') ~= parent then
  return redis.error_reply('WRONGSTATE the champion is not ' .. parent .. ', the parent of experiment #' .. id)
end
call('HSET', prefix .. 'intent', 'experiment', id, 'parent', parent, 'commit', commit)
call('HSET', prefix .. 'verdict:' .. id, 'verdict', verdict)
move(prefix, id, from, 'merging', turn, commit, 'verdict', verdict)
