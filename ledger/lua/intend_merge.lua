-- The arbiter says yes, before it touches git: scored -> merging.
-- inputs:  prefix, id, verdict (JSON), parent, commit
-- checks:  it is scored; no other intent is open; the champion is the parent
-- writes:  the intent, the verdict, the state
local prefix, id, verdict, parent, commit = unpack(ARGV)
local refused = refusal(prefix, id, 'scored')
if refused then return refused end
local other = call('HGET', prefix .. 'intent', 'experiment')
if other then return redis.error_reply('WRONGSTATE experiment #' .. other .. ' is being merged') end
if call('HGET', prefix .. 'champion', 'commit') ~= parent then
  return redis.error_reply('WRONGSTATE the champion is not ' .. parent .. ', the parent of experiment #' .. id)
end
call('HSET', prefix .. 'intent', 'experiment', id, 'parent', parent, 'commit', commit)
call('HSET', row_of(prefix, id), 'verdict', verdict)
move(prefix, id, 'merging', commit, 'verdict', verdict)
