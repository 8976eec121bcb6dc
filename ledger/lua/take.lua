-- A runner takes the oldest candidate of the current champion: queued -> running, under the fence of its lease.
-- inputs:  prefix, device, fence, holder, champion (commit)
-- checks:  the lease is current; a runner has at most one experiment and is given that one again
-- writes:  candidates of older champions go back to proposed (baselines, whose turn is 0, excepted); state, attempts and
--          fence of the one taken; returns its id, or nil
local prefix, device, fence, holder, champion = unpack(ARGV)
if not lease_is_current(device, fence, holder) then
  return redis.error_reply('STALEFENCE the lease of ' .. device .. ' under fence ' .. fence .. ' is over')
end
for _, id in ipairs(call('ZRANGE', prefix .. 'state:running', 0, -1)) do
  local run = call('HMGET', prefix .. 'run:' .. id, 'device', 'fence')
  if run[1] == device and run[2] == fence then return tonumber(id) end
end
local queued = call('ZRANGE', prefix .. 'state:queued', 0, -1, 'WITHSCORES')
for i = 1, #queued, 2 do
  local id, turn, row = queued[i], queued[i + 1], row_of(prefix, queued[i])
  if tonumber(turn) == 0 or call('HGET', row, 'parent') == champion then
    local run = prefix .. 'run:' .. id
    call('HINCRBY', run, 'attempts', 1)
    call('HSET', run, 'device', device, 'fence', fence, 'holder', holder)
    move(prefix, id, 'queued', 'running', turn, device)
    return tonumber(id)
  end
  call('HSET', row, 'note', 'rebase: champion moved')
  move(prefix, id, 'queued', 'proposed', turn, 'rebase: champion moved')
end
return false
