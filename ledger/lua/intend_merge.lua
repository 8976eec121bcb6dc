-- The arbiter says yes; the relay will land it: scored -> merging.
-- inputs:  prefix, id, verdict (JSON), parent, commit, intent (JSON), decisions (when this one was thought out; '*': any)
-- checks:  nothing was decided since; no other merge is under way; the champion is the parent; it is scored and was never merged
-- writes:  the intent into the outbox, the verdict, the state
local prefix, id, verdict, parent, commit, intent, decisions = unpack(ARGV)
local other = call('HKEYS', prefix .. 'outbox')[1]
local late = overtaken(prefix, decisions)
if late then return late end
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
if other then return redis.error_reply('WRONGSTATE experiment #' .. other .. ' is being merged') end
if call('HEXISTS', prefix .. 'verdict:' .. id, 'commit') == 1 then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' was merged already')
end
if call('HGET', prefix .. 'champion', 'commit') ~= parent then
  return redis.error_reply('WRONGSTATE the champion is not ' .. parent .. ', the parent of experiment #' .. id)
end
count_decision(prefix)
call('HSET', prefix .. 'outbox', id, intent)
call('HSET', prefix .. 'verdict:' .. id, 'verdict', verdict)
move(prefix, id, from, 'merging', turn, commit, 'verdict', verdict)
