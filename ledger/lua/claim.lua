-- A coder takes the oldest idea: proposed -> claimed.
-- inputs:  prefix, worker, patience_ms
-- checks:  an idea is proposed, or was claimed longer than patience_ms ago by a worker that must have died
-- writes:  state and worker; returns the id, or nil
local prefix, worker, patience_ms = unpack(ARGV)
local id = call('ZRANGE', prefix .. 'state:proposed', 0, 0)[1]
if not id then
  for _, claimed in ipairs(call('ZRANGE', prefix .. 'state:claimed', 0, -1)) do
    local since = call('HGET', row_of(prefix, claimed), 'updated_at')
    if now() - since > tonumber(patience_ms) then
      id = claimed
      break
    end
  end
end
if not id then return false end
move(prefix, id, 'claimed', worker)
return tonumber(id)
