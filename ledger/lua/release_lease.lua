-- inputs:  device, fence, holder
-- checks:  the lease is current; nothing to do otherwise
-- writes:  ends the lease
local device, fence, holder = unpack(ARGV)
if lease_is_current(device, fence, holder) then call('PEXPIRE', 'autoresearch:lease:' .. device, 0) end
