-- A runner hands in a measurement: running -> scored | crashed | invalid. After a failure of the host: -> where it was taken
-- from, and -> crashed when the host failed too often.
-- inputs:  prefix, id, device, fence, holder, outcome (a state, or 'host'), measurement (JSON), result (its key among all
--          results, '' without a score), device_ms, val_bpb, note, max_attempts
-- checks:  no such result is recorded; the lease is current and the experiment runs under its fence
-- writes:  the measurement, its key, its score, the time it took, the state
local prefix, id, device, fence, holder, outcome, measurement, result, device_ms, val_bpb, note, max_attempts =
  unpack(ARGV)
local run = prefix .. 'run:' .. id
local known = call('HGET', prefix .. 'results', result)
if known then
  return redis.error_reply('RECORDED this result is recorded already, for experiment #' .. known)
end
local of_device, of_fence, failures, taken_from = unpack(call('HMGET', run, 'device', 'fence', 'host_failures', 'from'))
local turn = call('ZSCORE', prefix .. 'state:running', id)
if not (lease_is_current(device, fence, holder) and turn and of_device == device and of_fence == fence) then
  return redis.error_reply('STALEFENCE experiment #' .. id .. ' no longer runs under fence ' .. fence .. ' of ' .. device
    .. '; its result is dropped')
end
local to = outcome
if outcome == 'host' then
  failures = (failures or 0) + 1
  to = taken_from or 'queued'
  if failures >= tonumber(max_attempts) then
    note = 'host failed ' .. failures .. ' times: ' .. note
    call('HSET', run, 'gave_up', to)
    to, failures = 'crashed', 0
  end
  call('HSET', run, 'host_failures', failures)
end
call('RPUSH', prefix .. 'measurements:' .. id, measurement)
if result ~= '' then
  call('HSET', prefix .. 'results', result, id)
  call('ZADD', prefix .. 'scores', val_bpb, id)
end
call('HINCRBY', prefix .. 'spent', 'device_ms', device_ms)
call('HDEL', run, 'device', 'fence', 'holder', 'from', 'live')
call('HSET', row_of(prefix, id), 'note', note)
move(prefix, id, 'running', to, turn, note, 'measurement', measurement)
return to
