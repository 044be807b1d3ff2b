-- KEYS: what was revoked, ZSET: score 0 the epoch, then "second it expires in|name" by 1, 2, 3 …
-- ARGV: 1 the epoch that the asker knows, 2 the last number that he read, 3 an epoch for a new list, 4 most
--       entries, 5 for how many ms the list is kept at least, 6 … entries of his.
-- Answers the epoch, the last number, and the entries that he has not read: all of them of another epoch.
local key = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1])
if redis.call('TYPE', key).ok ~= 'zset' then
  redis.call('UNLINK', key)
end
local epoch = redis.call('ZRANGEBYSCORE', key, 0, 0, 'LIMIT', 0, 1)[1]
if not epoch then
  epoch = ARGV[3]
  redis.call('UNLINK', key)
  redis.call('ZADD', key, 0, epoch)
end
-- Entries are added in the order in which they expire, but for those that were put back.
while true do
  local first = redis.call('ZRANGE', key, 1, 1)[1]
  local expires = first and tonumber(string.match(first, '^(%d+)|'))
  if not first or (expires and expires > now) then
    break
  end
  redis.call('ZREM', key, first)
end
local last = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
if epoch == ARGV[1] then
  last = math.max(last, tonumber(ARGV[2]))
end
for place = 6, #ARGV do
  if not redis.call('ZSCORE', key, ARGV[place]) then
    last = last + 1
    redis.call('ZADD', key, last, ARGV[place])
  end
end
local beyond = redis.call('ZCARD', key) - 1 - tonumber(ARGV[4])
if beyond > 0 then
  redis.call('ZREMRANGEBYRANK', key, 1, beyond)
end
if redis.call('PTTL', key) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', key, ARGV[5])
end
local from = epoch == ARGV[1] and '(' .. ARGV[2] or '(0'
return { epoch, string.format('%.0f', last), redis.call('ZRANGEBYSCORE', key, from, '+inf') }
