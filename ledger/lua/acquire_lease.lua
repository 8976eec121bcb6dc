-- inputs:  device, holder, ttl_ms
-- checks:  the device is not in quarantine, and nobody holds it
-- writes:  the lease under a new fence; returns {fence}, or {0, `<fence> <holder>` of the current one, ms it still lasts}
local device, holder, ttl_ms = unpack(ARGV)
local lease = 'autoresearch:lease:' .. device
local reason = call('HGET', QUARANTINE, device)
if reason then return redis.error_reply('QUARANTINED ' .. device .. ' is in quarantine: ' .. reason) end
local current = call('GET', lease)
if current then return { 0, current, call('PTTL', lease) } end
local fence = call('INCR', 'autoresearch:fence:' .. device)
call('SET', lease, fence .. ' ' .. holder, 'PX', ttl_ms)
return { fence }
