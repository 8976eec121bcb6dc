-- A coder takes the oldest idea: proposed -> claimed.
-- inputs:  prefix, worker, patience_ms
-- checks:  an idea is proposed, or was claimed longer than patience_ms ago by a worker that must have died
-- writes:  state and worker; returns the id, or nil
local prefix, worker, patience_ms = unpack(ARGV)
local from, oldest = 'proposed', call('ZRANGE', prefix .. 'state:proposed', 0, 0, 'WITHSCORES')
local id, turn = oldest[1], oldest[2]
if not id then
  from = 'claimed'
  local claimed = call('ZRANGE', prefix .. 'state:claimed', 0, -1, 'WITHSCORES')
  for i = 1, #claimed, 2 do
    if now() - call('ZSCORE', prefix .. 'updated', claimed[i]) > tonumber(patience_ms) then
      id, turn = claimed[i], claimed[i + 1]
      break
    end
  end
end
if not id then return false end
move(prefix, id, from, 'claimed', turn, worker)
call('HSET', row_of(prefix, id), 'worker', worker)
return tonumber(id)
