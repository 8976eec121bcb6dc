-- A whole campaign at once: rebuilt from git, or imported.
-- inputs:  prefix, name, campaign (JSON), schema, kind and detail of the event that says where it is from, rows (JSON list),
--          champion ('' or the id of the experiment), commit of it, device_ms of all runs
--          a row: id, state, baseline, repeats (0 for none), detail, updated (ms), bpb (text or ''), row/run/verdict (objects of text), measurements
--          (texts), results (keys), records (list of {name, text})
-- checks:  no campaign has this name
-- writes:  everything, and a history that begins with that event
local prefix, name, campaign, schema, kind, detail, rows, champion, commit, device_ms = unpack(ARGV)
rows = cjson.decode(rows)
local refused = begin_campaign(prefix, name, campaign, schema, kind, detail)
if refused then return refused end
call('HSET', prefix .. 'spent', 'device_ms', device_ms)
for _, it in ipairs(rows) do
  for part, key in pairs({ row = 'experiment:', run = 'run:', verdict = 'verdict:' }) do
    for field, value in pairs(it[part]) do call('HSET', prefix .. key .. it.id, field, value) end
  end
  for _, text in ipairs(it.measurements) do call('RPUSH', prefix .. 'measurements:' .. it.id, text) end
  for _, key in ipairs(it.results) do call('HSET', prefix .. 'results', key, it.id) end
  if it.bpb ~= '' then call('ZADD', prefix .. 'scores', it.bpb, it.id) end
  if it.row.meaning then call('HSETNX', prefix .. 'programs', it.row.meaning, it.id) end
  if it.baseline then
    call('HSET', prefix .. 'baselines', it.row.parent, it.id)
    call('ZADD', prefix .. 'lane:baseline', it.id, it.id)
  end
  local of_branch = it.baseline or it.repeats > 0
  if it.repeats > 0 then call('ZADD', prefix .. 'lane:repeat', it.repeats, it.id) end
  call('ZADD', prefix .. 'state:' .. it.state, of_branch and 0 or it.id, it.id)
  call('ZADD', prefix .. 'updated', it.updated, it.id)
  for _, record in ipairs(it.records) do note_event(prefix, it.id, kind, '', record[1], record[2]) end
  note_event(prefix, it.id, '→' .. it.state, it.detail)
  call('SET', prefix .. 'ids', it.id)
end
if champion ~= '' then call('HSET', prefix .. 'champion', 'commit', commit, 'experiment', champion) end
