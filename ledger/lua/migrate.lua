-- One campaign, from layout 1 to layout 2. What layout 1 had:
--   experiment:<id>  hash of everything that is now split into experiment:, run: and verdict:, and state, updated_at, device_s, val_bpb
--   events           stream; head  hash of its newest entry; live:<id>  telemetry
-- inputs:  prefix, head (of the history that the rest follows from), device_ms (of all runs), results (JSON: key -> id),
--          scores (JSON: id -> val_bpb as text)
-- checks:  it has layout 1, and nobody wrote meanwhile; else returns 0
-- writes:  everything in the new layout, every text as it was, and takes away the old; returns 1
local prefix, head, device_ms, results, scores = unpack(ARGV)
results, scores = cjson.decode(results), cjson.decode(scores)
local events = prefix .. 'events'
if call('TYPE', events).ok ~= 'stream' or (call('GET', prefix .. 'head') or '') ~= head then return 0 end
local history = call('XRANGE', events, '-', '+')
call('DEL', events, prefix .. 'head')
for _, entry in ipairs(history) do
  local event = { at = string.match(entry[1], '%d+'), record = '', digest = '', hash = '' }
  for i = 1, #entry[2], 2 do event[entry[2][i]] = entry[2][i + 1] end
  call('RPUSH', events, cjson.encode(event))
end
local PLACE = { attempts = 'run:', device = 'run:', fence = 'run:', holder = 'run:', host_failures = 'run:',
  verdict = 'verdict:', commit = 'verdict:', rebases = 'verdict:' }
for id = 1, tonumber(call('GET', prefix .. 'ids') or 0) do
  local row = row_of(prefix, id)
  if call('HGET', row, 'lane') == 'baseline' then call('ZADD', prefix .. 'lane:baseline', id, id) end
  local updated = call('HGET', row, 'updated_at')
  if updated then call('ZADD', prefix .. 'updated', updated, id) end
  for field, place in pairs(PLACE) do
    local value = call('HGET', row, field)
    if value then call('HSET', prefix .. place .. id, field, value) end
    call('HDEL', row, field)
  end
  call('HDEL', row, 'state', 'updated_at', 'device_s', 'val_bpb')
  call('DEL', prefix .. 'live:' .. id)
end
for key, id in pairs(results) do call('HSET', prefix .. 'results', key, id) end
for id, val_bpb in pairs(scores) do call('ZADD', prefix .. 'scores', val_bpb, id) end
call('HSET', prefix .. 'spent', 'device_ms', device_ms)
call('HDEL', prefix .. 'champion', 'val_bpb')
return 1
