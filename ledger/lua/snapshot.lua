-- Everything that Redis has of the ledger, at one moment; leases are left out, since they end by themselves.
-- inputs:  none
-- writes:  nothing; returns a list of {key, type, value}, where a hash is {field, value, …} and a sorted set {member, score, …}
local READ = {
  string = function(key) return call('GET', key) end,
  hash = function(key) return call('HGETALL', key) end,
  list = function(key) return call('LRANGE', key, 0, -1) end,
  zset = function(key) return call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
}
local found = {}
for _, key in ipairs(call('KEYS', 'autoresearch:*')) do
  if string.sub(key, 1, 19) ~= 'autoresearch:lease:' then
    local kind = call('TYPE', key).ok
    if not READ[kind] then return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', which no ledger has') end
    found[#found + 1] = { key, kind, READ[kind](key) }
  end
end
return found
