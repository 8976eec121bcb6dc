-- A reviewer decides: coded -> queued | refused.
-- inputs:  prefix, id, review (JSON), state to go to, detail, roles (JSON)
-- checks:  it is coded
-- writes:  the review and the state; the detail as note when it is refused
local prefix, id, review, to, detail, roles = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'coded')
if refused then return refused end
call('HSET', row_of(prefix, id), 'review', review)
if to == 'refused' then call('HSET', row_of(prefix, id), 'note', detail) end
sign(prefix, id, roles)
move(prefix, id, from, to, turn, detail, 'review', review)
