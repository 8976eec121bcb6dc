-- Something that concerns the campaign as a whole.
-- inputs:  prefix, kind, detail
-- writes:  an event
local prefix, kind, detail = unpack(ARGV)
note_event(prefix, '', kind, detail)
