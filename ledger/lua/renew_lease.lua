-- inputs:  device, fence, holder, ttl_ms
-- checks:  the lease is current; returns 0 otherwise
-- writes:  its end, ttl_ms from now by the server's clock; returns 1
local device, fence, holder, ttl_ms = unpack(ARGV)
if not lease_is_current(device, fence, holder) then return 0 end
return call('PEXPIRE', 'autoresearch:lease:' .. device, ttl_ms)
