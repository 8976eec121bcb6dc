-- Words shared by all scripts; put before each of them.
-- Times are the server's, in milliseconds since 1970. A campaign's keys begin with its prefix:
--   campaign          JSON of the Campaign                 events        stream of every change
--   ids               last experiment id                   programs      hash: meaning of a program -> its experiment
--   experiment:<id>   hash, one row                        baselines     hash: commit -> its baseline experiment
--   measurements:<id> list of JSON, oldest first           champion      hash: commit, experiment, val_bpb
--   state:<state>     sorted set of ids, by turn           outbox        hash: experiment -> JSON of its sealed Intent
--   live:<id>         JSON telemetry, expires              stop          why the campaign ended
--   head              hash of the newest event: each event's covers the one before, so that history cannot be rewritten
-- Not of a campaign: autoresearch:campaigns, autoresearch:lease:<device>, autoresearch:fence:<device>, and
--   autoresearch:quarantine, hash: device -> why it cannot be leased

local call = redis.call
local QUARANTINE = 'autoresearch:quarantine'

local function now()
  local time = call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

local function row_of(prefix, id)
  return prefix .. 'experiment:' .. id
end

-- An error reply unless the experiment is in one of the states given.
local function refusal(prefix, id, ...)
  local state = call('HGET', row_of(prefix, id), 'state')
  if not state then
    return redis.error_reply('NOEXPERIMENT there is no experiment #' .. id .. ' in this campaign')
  end
  for _, allowed in ipairs({ ... }) do
    if state == allowed then return nil end
  end
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is ' .. state .. ', not ' .. table.concat({ ... }, ' or '))
end

-- SHA-1 of strings, each after its length; Redis has no other hash. ledger/inspection.py computes the same.
local function hash_of(...)
  local parts = {}
  for i, text in ipairs({ ... }) do
    text = tostring(text)
    parts[i] = #text .. ':' .. text
  end
  return redis.sha1hex(table.concat(parts))
end

-- record: what of the row this event wrote (hypothesis, candidate, review, measurement, verdict), with its JSON.
local function note_event(prefix, id, kind, detail, record, json)
  local digest = json and redis.sha1hex(json) or ''
  local at, before = now(), call('GET', prefix .. 'head') or ''
  local hash = hash_of(before, at, id, kind, detail, record or '', digest)
  call('XADD', prefix .. 'events', '*', 'at', at, 'experiment', id, 'kind', kind, 'detail', detail,
    'record', record or '', 'digest', digest, 'hash', hash)
  call('SET', prefix .. 'head', hash)
end

-- Puts an experiment into a state and says so in the history. Turns go by id, so that whoever comes back keeps its
-- place; a baseline comes first, since nothing can be judged before it.
local function move(prefix, id, to, detail, record, json)
  local row = row_of(prefix, id)
  local from = call('HGET', row, 'state')
  if from then call('ZREM', prefix .. 'state:' .. from, id) end
  local turn = call('HGET', row, 'lane') == 'baseline' and 0 or id
  call('ZADD', prefix .. 'state:' .. to, turn, id)
  call('HSET', row, 'state', to, 'updated_at', now())
  note_event(prefix, id, (from or '') .. '→' .. to, detail, record, json)
end

-- roles: JSON object, role -> SHA-256 of its file.
local function sign(prefix, id, roles)
  for role, sha256 in pairs(cjson.decode(roles)) do
    call('HSET', row_of(prefix, id), 'role:' .. role, sha256)
  end
end

-- The device's lease is `<fence> <holder>` and is current exactly as long as its key lives.
local function lease_is_current(device, fence, holder)
  return call('GET', 'autoresearch:lease:' .. device) == fence .. ' ' .. holder
end

-- The relay's word counts under its current lease only: an error reply otherwise.
local function stale_relay(prefix, fence, holder)
  local lease = 'relay/' .. string.match(prefix, '([^:]+):$')
  if not lease_is_current(lease, fence, holder) then
    return redis.error_reply('STALEFENCE the lease ' .. fence .. ' of ' .. lease .. ' is over; another relay goes on')
  end
end

-- A measured experiment starts over: -> proposed, or -> stale. Returns the new state.
local function send_back(prefix, id, note, max_rebases)
  local row, to = row_of(prefix, id), 'proposed'
  if call('HINCRBY', row, 'rebases', 1) > tonumber(max_rebases) then to = 'stale' end
  call('HDEL', row, 'verdict')
  call('HSET', row, 'note', note)
  move(prefix, id, to, note)
  return to
end
