-- A runner takes the oldest candidate of the current champion: queued -> running, under the fence of its lease.
-- inputs:  prefix, device, fence, holder, champion (commit)
-- checks:  the lease is current; a runner has at most one experiment and is given that one again
-- writes:  candidates of older champions go back to proposed (baselines excepted); state, attempts and fence of the one
--          taken; returns its id, or nil
local prefix, device, fence, holder, champion = unpack(ARGV)
if not lease_is_current(device, fence, holder) then
  return redis.error_reply('STALEFENCE the lease of ' .. device .. ' under fence ' .. fence .. ' is over')
end
for _, id in ipairs(call('ZRANGE', prefix .. 'state:running', 0, -1)) do
  local row = call('HMGET', row_of(prefix, id), 'device', 'fence')
  if row[1] == device and row[2] == fence then return tonumber(id) end
end
for _, id in ipairs(call('ZRANGE', prefix .. 'state:queued', 0, -1)) do
  local row = row_of(prefix, id)
  if call('HGET', row, 'lane') == 'baseline' or call('HGET', row, 'parent') == champion then
    call('HINCRBY', row, 'attempts', 1)
    call('HSET', row, 'device', device, 'fence', fence, 'holder', holder)
    move(prefix, id, 'running', device)
    return tonumber(id)
  end
  call('HSET', row, 'note', 'rebase: champion moved')
  move(prefix, id, 'proposed', 'rebase: champion moved')
end
return false
