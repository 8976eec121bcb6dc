-- A call has ended: what it cost is booked, and what was set aside for it is free again.
-- inputs:  prefix, call, microdollars set aside, microdollars paid, experiment ('' for none), call (JSON)
-- checks:  its hold is there: nothing is booked twice
-- writes:  the sums, the call
local prefix, id, held, paid, experiment, json = unpack(ARGV)
local money = prefix .. 'money'
if call('HDEL', prefix .. 'holds', id) == 0 then
  return redis.error_reply('RECORDED call ' .. id .. ' is booked already')
end
local function settle(name)
  call('HINCRBY', money, 'held:' .. name, 0 - tonumber(held)) -- not "-0", which is no integer to Redis
  call('HINCRBY', money, name, paid)
end
settle('campaign')
if experiment ~= '' then settle('experiment:' .. experiment) end
call('RPUSH', prefix .. 'calls', json)
