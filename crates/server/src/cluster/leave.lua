-- KEYS: this node, all nodes, until when each of them is there.
-- ARGV: its name, what others are to know instead, for how many ms.
-- Those who ask meanwhile learn that it went by itself.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[1])
return 0
