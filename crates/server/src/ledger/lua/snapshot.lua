-- KEYS: 7 good limits; from 8 the limit of each source
-- ARGV: from 4, of each source: id, configured limit
expire()
local list, all = {}, redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
for from = 1, #all, 2 * CHUNK do
  local ids = {}
  for place = from, math.min(from + 2 * CHUNK, #all + 1) - 1, 2 do
    ids[#ids + 1] = all[place]
  end
  for place, record in ipairs(redis.call('HMGET', records, unpack(ids))) do
    if record and parse(record) then
      list[#list + 1] = { ids[place], all[from + 2 * place - 1], record }
    end
  end
end
local limits = {}
for place = 4, #ARGV, 2 do
  limits[#limits + 1] = limit_of(ARGV[place], ARGV[place + 1], KEYS[8 + (place - 4) / 2], KEYS[7])
end
return answer('snapshot', list, limits)
