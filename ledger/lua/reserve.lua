-- Money for a call to a language model is set aside before the call, as much as it can cost at most.
-- inputs:  prefix, call, microdollars, experiment ('' for none), limit of the campaign, limit of the experiment, hold (JSON)
-- checks:  with it, neither limit is exceeded: what was paid and what is set aside count alike; what costs nothing exceeds none
-- writes:  the hold, and the sums
local prefix, id, price, experiment, of_campaign, of_experiment, hold = unpack(ARGV)
local money = prefix .. 'money'
local function sum(name) return tonumber(call('HGET', money, name) or 0) end
local function over(name, limit)
  return tonumber(price) > 0 and sum(name) + sum('held:' .. name) + tonumber(price) > tonumber(limit)
end
if call('HEXISTS', prefix .. 'holds', id) == 1 then
  return redis.error_reply('RECORDED money for call ' .. id .. ' is set aside already')
end
if over('campaign', of_campaign) then
  call('HSET', money, 'refused', now())
  return redis.error_reply('BROKE campaign')
end
if experiment ~= '' and over('experiment:' .. experiment, of_experiment) then
  return redis.error_reply('BROKE experiment')
end
call('HSET', prefix .. 'holds', id, hold)
call('HINCRBY', money, 'held:campaign', price)
if experiment ~= '' then call('HINCRBY', money, 'held:experiment:' .. experiment, price) end
