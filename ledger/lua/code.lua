-- A coder hands in a program: claimed -> coded, or -> duplicate.
-- inputs:  prefix, id, candidate (JSON), parent, meaning, roles (JSON)
-- checks:  it is claimed; whether another experiment owns a program of this meaning
-- writes:  the candidate; the claim on its meaning in place of an older one; returns the owner's id if there is one, or nil
local prefix, id, candidate, parent, meaning, roles = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'claimed')
if refused then return refused end
local row, programs = row_of(prefix, id), prefix .. 'programs'
local owner, before = call('HGET', programs, meaning), call('HGET', row, 'meaning')
local duplicate = owner and owner ~= id
if before and call('HGET', programs, before) == id then call('HDEL', programs, before) end
call('HSET', row, 'candidate', candidate, 'parent', parent, 'meaning', meaning, 'note', '')
call('HDEL', row, 'review')
sign(prefix, id, roles)
if duplicate then
  local note = 'same program as #' .. owner
  call('HSET', row, 'note', note)
  move(prefix, id, from, 'duplicate', turn, note, 'candidate', candidate)
  return tonumber(owner)
end
call('HSET', programs, meaning, id)
move(prefix, id, from, 'coded', turn, '', 'candidate', candidate)
return false
