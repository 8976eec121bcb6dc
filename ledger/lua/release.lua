-- A coder gives up the task, not the idea: claimed -> proposed.
-- inputs:  prefix, id
-- checks:  it is claimed
-- writes:  state
local prefix, id = unpack(ARGV)
local refused, from, turn = refusal(prefix, id, 'claimed')
if refused then return refused end
move(prefix, id, from, 'proposed', turn, 'released')
