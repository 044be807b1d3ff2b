-- KEYS: 7 the source's limit, 8 good limits
-- ARGV: 4 source, 5 configured limit or empty, 6 "read", "set" or "reset", 7 the limit to set
expire()
if ARGV[5] ~= '' then
  if ARGV[6] == 'set' then
    redis.call('SET', KEYS[7], ARGV[7])
  elseif ARGV[6] == 'reset' then
    redis.call('DEL', KEYS[7])
  end
end
local limit = limit_of(ARGV[4], ARGV[5], KEYS[7], KEYS[8])
return answer('counted', units_of(ARGV[4]), limit)
