-- KEYS: 7 reservation, 8 metadata, 9 heartbeat
-- ARGV: 4 id
local id = ARGV[4]
expire()
local lease = read(id)
if not lease then
  return answer('unknown')
end
local expires = redis.call('ZSCORE', leases, id) or whole(now)
remove(id, lease)
redis.call('UNLINK', KEYS[7], KEYS[8], KEYS[9])
local viewers = count('s/' .. lease.source)
if KEYS[10] then
  redis.call('SET', KEYS[10], viewers)
else
  redis.call('HSET', mirrors, lease.source, 'stale')
end
if lease.owner ~= node then
  log_ended(id, lease, 'released', '')
end
local units = unit == 'viewer' and viewers or units_of(lease.source)
return answer('released', pack(lease), expires, units)
