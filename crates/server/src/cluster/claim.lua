-- KEYS: the lease on a camera. ARGV: who wants it, for how many ms.
-- Answers whose it is; false where it is the asker's from here on.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return owner
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
