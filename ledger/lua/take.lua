-- A runner takes what is next: queued | confirming -> running, under the fence of its lease. Baselines and repeats come first
-- (their turn is 0), then candidates that are run again, then the oldest new one.
-- inputs:  prefix, device, fence, holder, champion (commit), new (1: a candidate may have its first run)
-- checks:  the lease is current; a runner has at most one experiment and is given that one again
-- writes:  candidates of older champions go back to proposed (baselines, whose turn is 0, excepted); state, attempts and
--          fence of the one taken; returns its id, or nil
local prefix, device, fence, holder, champion, new = unpack(ARGV)
if not lease_is_current(device, fence, holder) then
  return redis.error_reply('STALEFENCE the lease of ' .. device .. ' under fence ' .. fence .. ' is over')
end
for _, id in ipairs(call('ZRANGE', prefix .. 'state:running', 0, -1)) do
  local run = call('HMGET', prefix .. 'run:' .. id, 'device', 'fence')
  if run[1] == device and run[2] == fence then return tonumber(id) end
end
-- where: the state that it goes back to when the host fails it.
local function start(id, where, turn)
  local run = prefix .. 'run:' .. id
  call('HINCRBY', run, 'attempts', 1)
  call('HSET', run, 'device', device, 'fence', fence, 'holder', holder, 'from', where)
  move(prefix, id, where, 'running', turn, device)
  return tonumber(id)
end
local queued = call('ZRANGE', prefix .. 'state:queued', 0, -1, 'WITHSCORES')
if queued[1] and tonumber(queued[2]) == 0 then return start(queued[1], 'queued', queued[2]) end
local confirming = call('ZRANGE', prefix .. 'state:confirming', 0, -1, 'WITHSCORES')
for i = 1, #confirming, 2 do
  -- Those of older champions are the arbiter's.
  if call('HGET', row_of(prefix, confirming[i]), 'parent') == champion then
    return start(confirming[i], 'confirming', confirming[i + 1])
  end
end
for i = 1, #queued, 2 do
  local id, turn, row = queued[i], queued[i + 1], row_of(prefix, queued[i])
  if call('HGET', row, 'parent') ~= champion then
    call('HSET', row, 'note', 'rebase: champion moved')
    move(prefix, id, 'queued', 'proposed', turn, 'rebase: champion moved')
  elseif new == '1' then
    return start(id, 'queued', turn)
  end
end
return false
