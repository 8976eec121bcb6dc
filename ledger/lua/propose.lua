-- A new idea: -> proposed.
-- inputs:  prefix, hypothesis (JSON), author, lane, roles (JSON), max_open ('' for no limit), talk ('' for none),
--          microdollars (its share of what that cost)
-- checks:  fewer than max_open experiments are between proposed and queued; else returns nil
-- writes:  the row, what has been spent on it; returns its id
local prefix, hypothesis, author, lane, roles, max_open, talk, microdollars = unpack(ARGV)
if max_open ~= '' then
  local open = 0
  for _, state in ipairs({ 'proposed', 'claimed', 'coded', 'queued' }) do
    open = open + call('ZCARD', prefix .. 'state:' .. state)
  end
  if open >= tonumber(max_open) then return false end
end
local id = call('INCR', prefix .. 'ids')
call('HSET', row_of(prefix, id), 'lane', lane, 'hypothesis', hypothesis, 'author', author, 'created_at', now())
if talk ~= '' then call('HSET', row_of(prefix, id), 'talk', talk) end
if tonumber(microdollars) > 0 then call('HINCRBY', prefix .. 'money', 'experiment:' .. id, microdollars) end
sign(prefix, id, roles)
move(prefix, id, '', 'proposed', id, author, 'hypothesis', hypothesis)
return id
