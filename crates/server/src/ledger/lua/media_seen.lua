-- Packets of many viewers. The answer to each is one of a list.
-- KEYS: from 7, of each: reservation, metadata, heartbeat
-- ARGV: 4 how long a lease lives after a packet in ms; from 5, of each: id, when its packet came
local silence = tonumber(ARGV[4])
local packets = {}
for place = 5, #ARGV, 2 do
  local first = 7 + (place - 5) / 2 * 3
  packets[#packets + 1] = { id = ARGV[place], at = math.min(tonumber(ARGV[place + 1]), now),
    keys = { KEYS[first], KEYS[first + 1], KEYS[first + 2] } }
end
for _, packet in ipairs(packets) do
  local id = packet.id
  local lease = read(id)
  if lease and redis.call('EXISTS', packet.keys[1]) == 0 then
    finish(id, 'deleted', '')
  elseif lease and packet.at < tonumber(redis.call('ZSCORE', leases, id) or 0) then
    lease.last = math.max(lease.last or 0, packet.at)
    local expires = lease.last + silence
    redis.call('ZADD', leases, whole(expires), id)
    redis.call('HSET', records, id, pack(lease))
    show_renewed(id, lease, expires, packet.keys)
  end
end
expire()
local answers, units = {}, {}
for place, packet in ipairs(packets) do
  local lease = read(packet.id)
  if lease then
    units[lease.source] = units[lease.source] or units_of(lease.source)
    answers[place] = { {}, 'renewed', pack(lease), redis.call('ZSCORE', leases, packet.id) or whole(now),
      units[lease.source] }
  else
    answers[place] = { {}, 'unknown' }
  end
end
return answer('each', answers)
