-- Begin a campaign.
-- inputs:  prefix, name, campaign (JSON), schema (version of this layout)
-- checks:  no campaign has this name
-- writes:  the campaign, its name among all names; the version, if it is the first
local prefix, name, campaign, schema = unpack(ARGV)
if call('EXISTS', prefix .. 'campaign') == 1 then
  return redis.error_reply('EXISTS campaign ' .. name .. ' exists already: choose another name')
end
call('SETNX', 'autoresearch:schema', schema)
call('SET', prefix .. 'campaign', campaign)
call('ZADD', 'autoresearch:campaigns', now(), name)
note_event(prefix, '', 'created', name, 'campaign', campaign)
