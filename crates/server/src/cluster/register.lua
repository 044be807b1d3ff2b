-- KEYS: this node, all nodes, until when each of them is there.
-- ARGV: its name, what others need to know of it, its process, for how many ms it is there from here on.
-- Answers what is known of all who are there or have just left; false where another process has the name.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HGET', KEYS[2], ARGV[1])
local ends = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or '0')
local is_free = known and string.find(known, '"left":true', 1, true)
if known and ends > now and not is_free and not string.find(known, ARGV[3], 1, true) then
  return false
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('ZREM', KEYS[3], gone)
  redis.call('HDEL', KEYS[2], gone)
end
return redis.call('HVALS', KEYS[2])
