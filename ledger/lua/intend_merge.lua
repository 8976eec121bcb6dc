-- The arbiter says yes; the relay will land it: scored -> merging.
-- inputs:  prefix, id, verdict (JSON), parent, commit, intent (JSON)
-- checks:  it is scored; no other merge is under way; the champion is the parent
-- writes:  the intent into the outbox, the verdict, the state
local prefix, id, verdict, parent, commit, intent = unpack(ARGV)
local refused = refusal(prefix, id, 'scored')
if refused then return refused end
local other = call('HKEYS', prefix .. 'outbox')[1]
if other then return redis.error_reply('WRONGSTATE experiment #' .. other .. ' is being merged') end
if call('HGET', prefix .. 'champion', 'commit') ~= parent then
  return redis.error_reply('WRONGSTATE the champion is not ' .. parent .. ', the parent of experiment #' .. id)
end
call('HSET', prefix .. 'outbox', id, intent)
call('HSET', row_of(prefix, id), 'verdict', verdict)
move(prefix, id, 'merging', commit, 'verdict', verdict)
