-- Runs whose runner is gone: running -> queued; the attempt is not counted.
-- inputs:  prefix
-- checks:  the lease that each experiment runs under is over
-- writes:  state and attempts; returns the ids
local prefix = ARGV[1]
local orphans = {}
for _, id in ipairs(call('ZRANGE', prefix .. 'state:running', 0, -1)) do
  local row = row_of(prefix, id)
  local device, fence, holder = unpack(call('HMGET', row, 'device', 'fence', 'holder'))
  if not lease_is_current(device, fence, holder) then
    call('HINCRBY', row, 'attempts', -1)
    call('HDEL', row, 'device', 'fence', 'holder')
    call('DEL', prefix .. 'live:' .. id)
    move(prefix, id, 'queued', 'its runner is gone')
    orphans[#orphans + 1] = tonumber(id)
  end
end
return orphans
