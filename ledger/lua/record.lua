-- A runner hands in a measurement: running -> scored | crashed | invalid, or merged for a baseline. After a failure of
-- the host: -> queued, and -> crashed when the host failed too often.
-- inputs:  prefix, id, device, fence, holder, outcome (a state, or 'host'), measurement (JSON), device_s, val_bpb, note,
--          max_attempts
-- checks:  the lease is current and the experiment runs under its fence
-- writes:  the measurement, the seconds it took, the state; for a baseline the champion
local prefix, id, device, fence, holder, outcome, measurement, device_s, val_bpb, note, max_attempts = unpack(ARGV)
local row = row_of(prefix, id)
local state, of_device, of_fence, lane, parent =
  unpack(call('HMGET', row, 'state', 'device', 'fence', 'lane', 'parent'))
if not (lease_is_current(device, fence, holder) and state == 'running' and of_device == device and of_fence == fence) then
  return redis.error_reply('STALEFENCE experiment #' .. id .. ' no longer runs under fence ' .. fence .. ' of ' .. device
    .. '; its result is dropped')
end
local to = outcome
if outcome == 'host' then
  local failures = call('HINCRBY', row, 'host_failures', 1)
  to = 'queued'
  if failures >= tonumber(max_attempts) then
    to, note = 'crashed', 'host failed ' .. failures .. ' times: ' .. note
  end
elseif outcome == 'scored' and lane == 'baseline' then
  to = 'merged'
  call('HSET', row, 'commit', parent)
  call('HSET', prefix .. 'champion', 'commit', parent, 'experiment', id, 'val_bpb', val_bpb)
end
call('RPUSH', prefix .. 'measurements:' .. id, measurement)
call('HINCRBYFLOAT', row, 'device_s', device_s)
call('HSET', row, 'val_bpb', val_bpb, 'note', note)
call('HDEL', row, 'device', 'fence', 'holder')
call('DEL', prefix .. 'live:' .. id)
move(prefix, id, to, note, 'measurement', measurement)
return to
