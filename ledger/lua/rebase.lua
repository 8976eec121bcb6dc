-- The champion moved under a measured candidate: scored | confirming -> proposed, or -> stale when it happened too often.
-- inputs:  prefix, id, note, max_rebases, earlier (measurements that are judged no more)
-- checks:  it is scored or confirming
-- writes:  state, note, count; returns the new state
local prefix, id, note, max_rebases, earlier = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'scored', 'confirming')
if refused then return refused end
return send_back(prefix, id, from, turn, note, max_rebases, earlier)
