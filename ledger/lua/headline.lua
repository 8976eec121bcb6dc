-- A run of champion or start on the test split, which decides nothing.
-- inputs:  prefix, run (JSON), result (its key among all results, '' without a score), detail
-- checks:  no such result is recorded
-- writes:  the run, its key; an event
local prefix, run, result, detail = unpack(ARGV)
if call('HGET', prefix .. 'results', result) then
  return redis.error_reply('RECORDED this run of the headline is recorded already')
end
call('RPUSH', prefix .. 'headline', run)
if result ~= '' then call('HSET', prefix .. 'results', result, 'headline') end
note_event(prefix, '', 'headline', detail, 'headline', run)
