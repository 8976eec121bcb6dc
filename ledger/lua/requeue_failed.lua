-- What the host failed too often is tried again, since somebody has mended the host meanwhile: crashed -> where it was taken from.
-- Baselines and repeats always: all else waits for them. An idea once: one that fails the host each time would end every launch.
-- inputs:  prefix
-- checks:  each was given up for failures of the host; a repeat is of the present champion
-- writes:  the state; returns the ids
local prefix = ARGV[1]
local champion = call('HGET', prefix .. 'champion', 'commit')
local tried = {}
local crashed = call('ZRANGE', prefix .. 'state:crashed', 0, -1, 'WITHSCORES')
for i = 1, #crashed, 2 do
  local id, turn, run = crashed[i], crashed[i + 1], prefix .. 'run:' .. crashed[i]
  local to, again = unpack(call('HMGET', run, 'gave_up', 'again'))
  local wanted = not again
  if call('ZSCORE', prefix .. 'lane:baseline', id) then wanted = true end
  if call('ZSCORE', prefix .. 'lane:repeat', id) then wanted = call('HGET', row_of(prefix, id), 'parent') == champion end
  if to and wanted then
    call('HDEL', run, 'gave_up')
    call('HSET', run, 'again', 1)
    call('HSET', row_of(prefix, id), 'note', 'the host failed it: tried again')
    move(prefix, id, 'crashed', to, turn, 'the host failed it: tried again')
    tried[#tried + 1] = tonumber(id)
  end
end
return tried
