-- KEYS: 7 reservation, 8 metadata, 9 heartbeat
-- ARGV: 4 id, 5 how long it asks for in ms
local id = ARGV[4]
expire()
local lease = read(id)
if lease and redis.call('EXISTS', KEYS[7]) == 0 then
  finish(id, 'deleted', '')
  lease = nil
end
if not lease then
  return answer('unknown')
end
local expires = tonumber(redis.call('ZSCORE', leases, id) or now)
if not lease.last then
  expires = math.max(expires, now + tonumber(ARGV[5]))
  redis.call('ZADD', leases, whole(expires), id)
end
show_renewed(id, lease, expires, { KEYS[7], KEYS[8], KEYS[9] })
return answer('renewed', pack(lease), whole(expires), units_of(lease.source))
