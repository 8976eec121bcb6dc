-- Begin a campaign.
-- inputs:  prefix, name, campaign (JSON), schema (version of this layout)
-- checks:  no campaign has this name
-- writes:  the campaign, its name among all names; the version, if it is the first
local prefix, name, campaign, schema = unpack(ARGV)
return begin_campaign(prefix, name, campaign, schema, 'created', name)
