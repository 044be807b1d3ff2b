-- Once a second, and whenever something looks wrong: repairs what people did to the keys, and tells what
-- this node must know.
-- KEYS: 7 good limits; 8 ZSET each process by when it took its last census; from 9, of each source: its
--       count, its limit
-- ARGV: 4 epoch to begin if there is none, 5 the last entry of `ended` that was read or empty,
--       6 longest life in ms, 7 for how many ms a process that lives may be silent or empty: for ever;
--       from 8, of each source: id, configured limit
-- Who takes a census each second and took none for so long was stopped, or cut off.
local AWAY_MS = 3000
local repairs = {}
local function repaired(what, detail)
  repairs[#repairs + 1] = { what, detail }
end

-- Somebody else's data is put aside, not deleted.
for place, kind in ipairs({ 'zset', 'hash', 'zset', 'stream', 'string', 'hash', 'hash', 'zset' }) do
  local found = redis.call('TYPE', KEYS[place]).ok
  if found ~= 'none' and found ~= kind then
    local aside = KEYS[place] .. ':foreign:' .. whole(now)
    redis.call('RENAME', KEYS[place], aside)
    repaired('foreign', KEYS[place] .. ' held a ' .. found .. ', which is at ' .. aside)
  end
end

local begun = redis.call('SET', epoch, ARGV[4], 'NX') and 1 or 0
local this_epoch = redis.call('GET', epoch)

-- The index is derived anew where a count differs.
local total = redis.call('ZCARD', leases)
local mark = 'x/' .. unit
local indexed = count('s') + count('u') + count('n') + count('w') + count('v') + 1
if total == 0 and redis.call('EXISTS', index) == 0 then
  redis.call('ZADD', index, 0, mark)
end
if redis.call('ZSCORE', index, mark) ~= '0' or redis.call('HLEN', records) ~= total or count('s') ~= total or count('u') ~= total or count('n') ~= total
    or redis.call('ZCARD', index) ~= indexed or redis.call('ZCOUNT', index, 0, 0) ~= indexed then
  local known, all = {}, redis.call('ZRANGE', leases, 0, -1)
  redis.call('UNLINK', index)
  redis.call('ZADD', index, 0, mark)
  for _, id in ipairs(all) do
    local lease = read(id)
    if lease then
      known[id] = true
      enter(id, lease)
    else
      redis.call('ZREM', leases, id)
    end
  end
  for _, id in ipairs(redis.call('HKEYS', records)) do
    if not known[id] then
      redis.call('HDEL', records, id)
    end
  end
  repaired('index', 'leases and their index differed')
end

-- No lease lives longer than one that was renewed this moment: somebody changed its time, or the
-- store's clock went back.
local latest = now + tonumber(ARGV[6])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. whole(latest), '+inf')) do
  local lease = read(id)
  redis.call('ZADD', leases, whole(latest), id)
  if lease and lease.last and lease.last > now then
    lease.last = now
    redis.call('HSET', records, id, pack(lease))
  end
  repaired('expiry', id .. ' would have lived too long')
end
expire()

-- What a process granted that has died is of use to nobody: its leases end before those that nobody watches by
-- would by their time.
local heard, silence = KEYS[8], tonumber(ARGV[7])
if silence then
  -- Where the asker, or the store, was away itself, the silence of others proves nothing.
  local before = tonumber(redis.call('ZSCORE', heard, node) or now)
  if now - before > AWAY_MS or before > now then
    for _, other in ipairs(redis.call('ZRANGE', heard, 0, -1)) do
      redis.call('ZADD', heard, whole(now), other)
    end
  end
  redis.call('ZADD', heard, whole(now), node)
  for _, silent in ipairs(redis.call('ZRANGEBYSCORE', heard, '-inf', whole(now - silence))) do
    local orphans = below('n/' .. silent)
    for _, member in ipairs(orphans) do
      finish(string.match(member, '([^/]+)$'), 'expired', '')
    end
    if #orphans > 0 then
      repaired('orphaned', #orphans .. ' leases of a server that died were ended')
    end
    redis.call('ZREM', heard, silent)
  end
end

local ended, last = {}, ARGV[5]
if last == '' then
  local newest = redis.call('XREVRANGE', ended_log, '+', '-', 'COUNT', 1)[1]
  last = newest and newest[1] or '0-0'
else
  for _, entry in ipairs(redis.call('XRANGE', ended_log, '(' .. last, '+')) do
    last = entry[1]
    local fields = {}
    for place = 1, #entry[2], 2 do
      fields[entry[2][place]] = entry[2][place + 1]
    end
    if fields.node == node then
      ended[#ended + 1] = { fields.id or '', fields.cause or '', fields.by or '' }
    end
  end
end

local limits, wrong = {}, {}
for place = 8, #ARGV, 2 do
  local source, key = ARGV[place], 9 + (place - 8)
  local viewers, shown = tostring(count('s/' .. source)), redis.pcall('GET', KEYS[key])
  if shown ~= viewers then
    redis.call('SET', KEYS[key], viewers)
    if begun == 0 and not redis.call('HGET', mirrors, source) then
      local was = type(shown) == 'string' and string.sub(shown, 1, 40) or 'nothing of use'
      repaired('count', 'the count of ' .. source .. ' was ' .. was .. ' and is ' .. viewers)
    end
  end
  local limit, good, bad = limit_of(source, ARGV[place + 1], KEYS[key + 1], KEYS[7])
  if good then
    redis.call('HSET', KEYS[7], source, good)
  elseif not bad then
    redis.call('HDEL', KEYS[7], source)
  end
  limits[#limits + 1] = limit
  wrong[#wrong + 1] = bad or ''
end
redis.call('DEL', mirrors)

local own = {}
for _, member in ipairs(below('n/' .. node)) do
  own[#own + 1] = string.match(member, '([^/]+)$')
end
return answer('census', this_epoch, begun, repairs, ended, last, limits, wrong, own)
