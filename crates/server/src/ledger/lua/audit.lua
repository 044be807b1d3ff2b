-- Ends leases whose reservation somebody deleted.
-- KEYS: from 7 a reservation each    ARGV: from 4 its id
expire()
for place = 4, #ARGV do
  if redis.call('EXISTS', KEYS[place + 3]) == 0 and redis.call('HEXISTS', records, ARGV[place]) == 1 then
    finish(ARGV[place], 'deleted', '')
  end
end
return answer('audited')
