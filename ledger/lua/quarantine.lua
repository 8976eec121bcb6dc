-- The holder of a device says that it cannot be used for the time being; nobody can lease it until that is lifted.
-- inputs:  device, fence, holder, reason
-- checks:  the lease is current
-- writes:  the reason; the lease goes on, so that the holder can still record what it measured
local device, fence, holder, reason = unpack(ARGV)
if not lease_is_current(device, fence, holder) then
  return redis.error_reply('STALEFENCE the lease ' .. fence .. ' of ' .. device .. ' is over; its word does not count')
end
call('HSET', QUARANTINE, device, reason)
