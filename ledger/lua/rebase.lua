-- The champion moved under a measured candidate: scored -> proposed, or -> stale when it happened too often.
-- inputs:  prefix, id, note, max_rebases
-- checks:  it is scored
-- writes:  state, note, count; returns the new state
local prefix, id, note, max_rebases = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'scored')
if refused then return refused end
return send_back(prefix, id, from, turn, note, max_rebases)
