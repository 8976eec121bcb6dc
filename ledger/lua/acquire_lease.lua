-- inputs:  device, holder, ttl_ms
-- checks:  nobody holds the device
-- writes:  the lease under a new fence; returns {fence}, or {0, `<fence> <holder>` of the current one, ms it still lasts}
local device, holder, ttl_ms = unpack(ARGV)
local lease = 'autoresearch:lease:' .. device
local current = call('GET', lease)
if current then return { 0, current, call('PTTL', lease) } end
local fence = call('INCR', 'autoresearch:fence:' .. device)
call('SET', lease, fence .. ' ' .. holder, 'PX', ttl_ms)
return { fence }
