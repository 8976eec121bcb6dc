-- Runs whose runner is gone: running -> where it was taken from; the attempt is not counted.
-- inputs:  prefix
-- checks:  the lease that each experiment runs under is over
-- writes:  state and attempts; returns the ids
local prefix = ARGV[1]
local orphans = {}
local running = call('ZRANGE', prefix .. 'state:running', 0, -1, 'WITHSCORES')
for i = 1, #running, 2 do
  local id, run = running[i], prefix .. 'run:' .. running[i]
  local device, fence, holder, taken_from = unpack(call('HMGET', run, 'device', 'fence', 'holder', 'from'))
  if not lease_is_current(device, fence, holder) then
    call('HINCRBY', run, 'attempts', -1)
    call('HDEL', run, 'device', 'fence', 'holder', 'from', 'live')
    move(prefix, id, 'running', taken_from or 'queued', running[i + 1], 'its runner is gone')
    orphans[#orphans + 1] = tonumber(id)
  end
end
return orphans
