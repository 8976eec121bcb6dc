-- A coder could not carry out the idea: claimed | coded -> refused.
-- inputs:  prefix, id, note, roles (JSON)
-- checks:  it is claimed or coded
-- writes:  state and note
local prefix, id, note, roles = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'claimed', 'coded')
if refused then return refused end
call('HSET', row_of(prefix, id), 'note', note)
sign(prefix, id, roles)
move(prefix, id, from, 'refused', turn, note)
