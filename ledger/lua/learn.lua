-- What a result taught, in a reviewer's words.
-- inputs:  prefix, id, lesson (JSON), roles (JSON)
-- checks:  it has had its turn on a device, as far as an agent may see that, and no lesson yet
-- writes:  the lesson; an event
local prefix, id, lesson, roles = unpack(ARGV)
local row = row_of(prefix, id)
for _, state in ipairs({ 'proposed', 'claimed', 'coded', 'queued', 'refused', 'duplicate' }) do
  if call('ZSCORE', prefix .. 'state:' .. state, id) then
    return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is ' .. state .. ': it has taught nothing yet')
  end
end
if call('EXISTS', row) == 0 then
  return redis.error_reply('NOEXPERIMENT there is no experiment #' .. id .. ' in this campaign')
end
if call('HGET', row, 'lesson') then
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' has its lesson')
end
call('HSET', row, 'lesson', lesson)
sign(prefix, id, roles)
note_event(prefix, id, 'lesson', '', 'lesson', lesson)
