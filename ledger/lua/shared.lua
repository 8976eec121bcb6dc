-- Words shared by all scripts; put before each of them.
-- Times are the server's, in milliseconds since 1970. What an experiment has is split by who writes it, so that Redis itself
-- can refuse the others (ledger/users.py). A campaign's keys begin with its prefix:
--   agents   experiment:<id>   hash: idea, candidate, review, lesson,       programs  hash: meaning of a program -> experiment
--                              roles, note, talk
--            money             hash: millionths of a dollar, paid and held: holds     hash: call -> JSON of its Hold
--                              campaign, experiment:<id>, and when one was calls     list of JSON, oldest first
--                              refused
--   runners  run:<id>          hash: attempts, device, fence, holder, live, spent     hash: device_ms
--            measurements:<id> list of JSON, oldest first                   scores    sorted set: id by val_bpb
--            results           hash: what was measured under which seed -> experiment
--            headline          list of JSON: runs of champion and start on the test split, oldest first
--   arbiter  verdict:<id>      hash: verdict, commit, rebases, earlier      champion  hash: commit, experiment,
--                                                                                        decisions, lost_verdicts
--            baselines         hash: commit -> its baseline                 outbox    hash: experiment -> JSON of its sealed
--            lane:baseline     sorted set: ids of all baselines                        Intent
--            lane:repeat       sorted set: ids of all repeats, by the champion's
--   all      state:<state>     sorted set: ids by turn; who may write it    updated   sorted set: id by its last change
--                              follows from the state
--            ids               last experiment id                           events    list of JSON, only ever appended to: each
--                              entry's hash covers the one before, the newest entry's is the head of the history
--   launcher stop              why the campaign ended                       campaign  JSON of the Campaign
-- Not of a campaign: autoresearch:campaigns, autoresearch:schema, autoresearch:lease:<device>, autoresearch:fence:<device>,
--   and autoresearch:quarantine, hash: device -> why it cannot be leased
--
-- A script's first check touches the key that fewest may touch, and so does its first write: whoever may not do a step is
-- refused by Redis before anything is written.

local call = redis.call
local QUARANTINE = 'autoresearch:quarantine'

local clock

-- The server's time, the same for all that a script does.
local function now()
  if not clock then
    local time = call('TIME')
    clock = time[1] .. string.sub(1000000 + time[2], 2, 4)
  end
  return clock
end

local function row_of(prefix, id)
  return prefix .. 'experiment:' .. id
end

-- An error reply unless the experiment is in one of the states given; then the state and its turn there.
local function refusal(prefix, id, ...)
  for _, allowed in ipairs({ ... }) do
    local turn = call('ZSCORE', prefix .. 'state:' .. allowed, id)
    if turn then return nil, allowed, turn end
  end
  if call('EXISTS', row_of(prefix, id)) == 0 then
    return redis.error_reply('NOEXPERIMENT there is no experiment #' .. id .. ' in this campaign')
  end
  return redis.error_reply('WRONGSTATE experiment #' .. id .. ' is not ' .. table.concat({ ... }, ' or '))
end

-- SHA-1 of strings, each after its length; Redis has no other hash. ledger/inspection.py computes the same.
local function hash_of(...)
  local parts = { ... }
  for i, text in ipairs(parts) do parts[i] = #text .. ':' .. text end
  return redis.sha1hex(table.concat(parts))
end

-- record: what of the row this event wrote (hypothesis, candidate, review, lesson, measurement, verdict), with its JSON.
-- An entry is put together and taken apart by hand: every step waits for this, and cjson would double what it takes.
local function note_event(prefix, id, kind, detail, record, json)
  local events = prefix .. 'events'
  local newest = call('LINDEX', events, -1)
  local before = newest and string.match(newest, '"hash":"(%x+)"') or ''
  local at, digest = now(), json and redis.sha1hex(json) or ''
  id, record = id .. '', record or ''
  local hash = hash_of(before, at, id, kind, detail, record, digest)
  call('RPUSH', events, '{"at":"' .. at .. '","experiment":"' .. id .. '","kind":' .. cjson.encode(kind)
    .. ',"detail":' .. cjson.encode(detail) .. ',"record":"' .. record .. '","digest":"' .. digest
    .. '","hash":"' .. hash .. '"}')
end

-- Puts an experiment into a state, with the turn given, and says so in the history. from: '' for a new one.
local function move(prefix, id, from, to, turn, detail, record, json)
  call('ZADD', prefix .. 'state:' .. to, turn, id)
  if from ~= '' and from ~= to then call('ZREM', prefix .. 'state:' .. from, id) end
  call('ZADD', prefix .. 'updated', now(), id)
  note_event(prefix, id, from .. '→' .. to, detail, record, json)
end

-- The arbiter has decided something. What it thought out before that, it has to look at again.
local function count_decision(prefix)
  call('HINCRBY', prefix .. 'champion', 'decisions', 1)
end

-- An error reply if anything was decided since there were so many decisions; '*' for whoever does not mind.
local function overtaken(prefix, decisions)
  local present = call('HGET', prefix .. 'champion', 'decisions') or '0'
  if decisions ~= '*' and decisions ~= present then
    return redis.error_reply('WRONGSTATE something else was decided meanwhile: look again')
  end
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
local function send_back(prefix, id, from, turn, note, max_rebases, earlier)
  local verdict, to = prefix .. 'verdict:' .. id, 'proposed'
  count_decision(prefix)
  if call('HINCRBY', verdict, 'rebases', 1) > tonumber(max_rebases) then to = 'stale' end
  call('HDEL', verdict, 'verdict')
  call('HSET', verdict, 'earlier', earlier)
  call('HSET', row_of(prefix, id), 'note', note)
  move(prefix, id, from, to, turn, note)
  return to
end

-- A campaign is there from now on, with the event that its history begins with; an error reply where one has this name.
local function begin_campaign(prefix, name, campaign, schema, kind, detail)
  if call('EXISTS', prefix .. 'campaign') == 1 then
    return redis.error_reply('EXISTS campaign ' .. name .. ' exists already: choose another name')
  end
  call('SETNX', 'autoresearch:schema', schema)
  call('SET', prefix .. 'campaign', campaign)
  call('ZADD', 'autoresearch:campaigns', now(), name)
  note_event(prefix, '', kind, detail, 'campaign', campaign)
end
