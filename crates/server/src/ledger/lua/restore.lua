-- Puts back leases that the store lost. What is there stays.
-- KEYS: from 7, of each: reservation, metadata, heartbeat
-- ARGV: 4 the least that it lives on in ms; from 5, of each: id, record, expiry, camera's name
local restored = 0
for place = 5, #ARGV, 4 do
  local id, lease = ARGV[place], parse(ARGV[place + 1])
  if lease and redis.call('HEXISTS', records, id) == 0 then
    local expires = math.max(tonumber(ARGV[place + 2]), now + tonumber(ARGV[4]))
    local first = 7 + (place - 5) / 4 * 3
    insert(id, lease, expires)
    show(id, lease, expires, { KEYS[first], KEYS[first + 1], KEYS[first + 2] }, ARGV[place + 3])
    redis.call('HSET', mirrors, lease.source, 'stale')
    restored = restored + 1
  end
end
return answer('restored', restored)
