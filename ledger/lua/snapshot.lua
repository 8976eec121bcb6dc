-- What Redis has of the ledger at one moment, but for what has been read before and has not changed since. Leases are left
-- out, since they end by themselves.
-- inputs:  known (JSON object: prefix of a campaign -> how many of its events were read, before its experiments were)
-- writes:  nothing; returns a list of the prefixes and ids of experiments that changed since (what was read of them is void),
--          and a list of {key, type, value}: a hash is {field, value, …}, a sorted set {member, score, …}, and of a known
--          history only the newer events are there
local known = cjson.decode(ARGV[1])
local OF_EXPERIMENTS = { experiment = true, run = true, verdict = true, measurements = true }
local READ = {
  string = function(key) return call('GET', key) end,
  hash = function(key) return call('HGETALL', key) end,
  zset = function(key) return call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  list = function(key) return call('LRANGE', key, 0, -1) end,
}
local newer, changed, found = {}, {}, {}
for prefix, count in pairs(known) do
  newer[prefix] = {}
  for _, text in ipairs(call('LRANGE', prefix .. 'events', count, -1)) do
    local id = cjson.decode(text).experiment
    if id ~= '' and not newer[prefix][id] then changed[#changed + 1] = { prefix, id } end
    newer[prefix][id] = true
  end
end
for _, key in ipairs(call('KEYS', 'autoresearch:*')) do
  local prefix, rest = string.match(key, '^(autoresearch:campaign:[^:]+:)(.+)$')
  local part, id = string.match(rest or '', '^(%a+):(%d+)$')
  local unchanged = known[prefix or ''] and OF_EXPERIMENTS[part or ''] and not newer[prefix][id]
  if not unchanged and string.sub(key, 1, 19) ~= 'autoresearch:lease:' then
    local kind = call('TYPE', key).ok
    local value
    if known[prefix or ''] and rest == 'events' then
      value = call('LRANGE', key, known[prefix], -1)
    elseif READ[kind] then
      value = READ[kind](key)
    else
      return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', which no ledger has')
    end
    found[#found + 1] = { key, kind, value }
  end
end
return { changed, found }
