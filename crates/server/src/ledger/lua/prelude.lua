-- What every script begins with. Leases are told apart by their ids alone.
--
-- KEYS: 1 leases   ZSET   id by the millisecond in which it lives no more: which leases there are
--       2 records  HASH   id: source|camera|user|quality|class|created|last packet|node
--       3 index    ZSET   all of score 0, derived from the records, for counting by ZLEXCOUNT:
--                         s/source/watched/id, u/user/watched/id, n/node/id: a lease each;
--                         w/source/watched, v/user/watched: a watched camera each (source:camera),
--                         if the unit is a camera; x/unit: what it was derived for
--       4 ended    STREAM leases that one node ended and another one runs
--       5 epoch    STRING missing or another: somebody emptied the store
--       6 mirrors  HASH   sources whose count for people was let go stale, by whom
-- ARGV: 1 the time in a test, else empty; 2 this node; 3 "viewer" or "camera"
-- Users are percent-encoded, so that no part has '/' or '|'.
local leases, records, index, ended_log, epoch, mirrors = unpack(KEYS, 1, 6)
local now, node, unit = unpack(ARGV, 1, 3)
if now == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(now)
end

-- How long people's keys outlive the lease: while it lives, only a person can have deleted them.
local GRACE_MS = 10000
-- Leases told to other nodes; each reads them every second.
local ENDED_MAX = '10000'
-- Arguments that unpack may make of a table; Lua's stack has 8,000 places.
local CHUNK = 1000

-- A number as text. Few are different in one call, and C's printf takes longer than a command of the store:
-- the same goes for numbers that are handed to redis.call, so that these are texts.
local texts = {}
local function whole(number)
  local text = texts[number]
  if not text then
    text = string.format('%.0f', number)
    texts[number] = text
  end
  return text
end

-- nil for what we did not write.
local function parse(record)
  local source, camera, user, quality, class, created, last, owner = string.match(record,
    '^([%u%d_]+)|([%w_.-]+)|([%w%%]*)|(%l+)|(%d)|(%d+)|(%d*)|([%w-]+)$')
  if not source then
    return nil
  end
  return { source = source, camera = camera, user = user, quality = quality, class = tonumber(class),
    created = tonumber(created), last = tonumber(last), owner = owner, watched = source .. ':' .. camera }
end

local function pack(lease)
  local last = lease.last and whole(lease.last) or ''
  return table.concat({ lease.source, lease.camera, lease.user, lease.quality, whole(lease.class),
    whole(lease.created), last, lease.owner }, '|')
end

local function read(id)
  local record = redis.call('HGET', records, id)
  return record and parse(record)
end

-- How many of the index begin with `from` and a slash.
local function count(from)
  return redis.call('ZLEXCOUNT', index, '[' .. from .. '/', '(' .. from .. '0')
end

local function below(from)
  return redis.call('ZRANGEBYLEX', index, '[' .. from .. '/', '(' .. from .. '0')
end

local function enter(id, lease)
  redis.call('ZADD', index,
    '0', 's/' .. lease.source .. '/' .. lease.watched .. '/' .. id,
    '0', 'u/' .. lease.user .. '/' .. lease.watched .. '/' .. id,
    '0', 'n/' .. lease.owner .. '/' .. id)
  if unit == 'camera' then
    redis.call('ZADD', index, '0', 'w/' .. lease.source .. '/' .. lease.watched,
      '0', 'v/' .. lease.user .. '/' .. lease.watched)
  end
end

-- Leases of all, and of a source, as far as this script asked: insert and remove keep them true.
local all
local viewers = {}

local function all_leases()
  all = all or redis.call('ZCARD', leases)
  return all
end

local function viewers_of(source)
  viewers[source] = viewers[source] or count('s/' .. source)
  return viewers[source]
end

local function change_viewers(source, by)
  all = all and all + by
  viewers[source] = viewers[source] and viewers[source] + by
end

-- Gives what it wrote.
local function insert(id, lease, expires)
  local record = pack(lease)
  redis.call('ZADD', leases, whole(expires), id)
  redis.call('HSET', records, id, record)
  enter(id, lease)
  change_viewers(lease.source, 1)
  return record
end

local function remove(id, lease)
  redis.call('ZREM', leases, id)
  redis.call('HDEL', records, id)
  if not lease then
    all = nil
    return
  end
  change_viewers(lease.source, -1)
  local of_source = 's/' .. lease.source .. '/' .. lease.watched
  local of_user = 'u/' .. lease.user .. '/' .. lease.watched
  redis.call('ZREM', index, of_source .. '/' .. id, of_user .. '/' .. id, 'n/' .. lease.owner .. '/' .. id)
  if unit == 'viewer' then
    return
  end
  if count(of_source) == 0 then
    redis.call('ZREM', index, 'w/' .. lease.source .. '/' .. lease.watched)
  end
  if count(of_user) == 0 then
    redis.call('ZREM', index, 'v/' .. lease.user .. '/' .. lease.watched)
  end
end

-- Leases that ended without having been named by the operation.
local told = {}

local function log_ended(id, lease, cause, by)
  redis.call('XADD', ended_log, 'MAXLEN', '~', ENDED_MAX, '*', 'node', lease.owner, 'id', id,
    'cause', cause, 'by', by)
end

local function finish(id, cause, by)
  local expires = redis.call('ZSCORE', leases, id)
  local lease = read(id)
  remove(id, lease)
  if not lease then
    return
  end
  redis.call('HSET', mirrors, lease.source, 'stale')
  told[#told + 1] = { id, cause, by, whole(expires or now), pack(lease) }
  if lease.owner ~= node then
    log_ended(id, lease, cause, by)
  end
end

-- All of them, however many: no operation may see one.
local function expire()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now))) do
    finish(id, 'expired', '')
  end
end

local function units_of(source)
  return unit == 'camera' and count('w/' .. source) or viewers_of(source)
end

local function answer(...)
  local first = redis.call('ZRANGE', leases, '0', '0', 'WITHSCORES')
  return { whole(now), first[2] or '', told, ... }
end

local function decoded(user)
  if not string.find(user, '%', 1, true) then
    return user
  end
  return (string.gsub(user, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

-- What people put in the place of a hash is taken away.
local function set_fields(key, ...)
  local done = redis.pcall('HSET', key, ...)
  if type(done) == 'table' and done.err then
    redis.call('UNLINK', key)
    redis.call('HSET', key, ...)
  end
end

-- What people read of a lease.
local function show(id, lease, expires, keys, name)
  local room = 'camera_' .. lease.camera
  local rest = whole(math.max(expires - now, 0) + GRACE_MS)
  set_fields(keys[1], 'camera_id', lease.camera, 'source', lease.source, 'user_id', decoded(lease.user),
    'created_at', whole(lease.created), 'expires_at', whole(expires), 'room_name', room, 'node', lease.owner)
  redis.call('PEXPIRE', keys[1], rest)
  set_fields(keys[2], 'camera_name', name, 'room_name', room, 'identity', 'viewer_' .. id,
    'ingress_id', 'whip-pusher-' .. lease.camera, 'quality', lease.quality, 'class', whole(lease.class))
  redis.call('PEXPIRE', keys[2], rest)
  redis.call('SET', keys[3], whole(now), 'PX', '30000')
end

local function show_renewed(id, lease, expires, keys)
  local rest = whole(math.max(expires - now, 0) + GRACE_MS)
  local done = redis.pcall('HSET', keys[1], 'expires_at', whole(expires))
  if type(done) == 'table' and done.err then
    show(id, lease, expires, keys, '')
    return
  end
  redis.call('PEXPIRE', keys[1], rest)
  redis.call('PEXPIRE', keys[2], rest)
  redis.call('SET', keys[3], whole(now), 'PX', '30000')
end

-- A limit as people may change it: what is no limit does not count, but the last that was one does.
-- `configured` is empty for a source that is not: it has none.
local function limit_of(source, configured, key, good)
  if configured == '' then
    return 0
  end
  local text = redis.pcall('GET', key)
  if text == false then
    return tonumber(configured)
  end
  if type(text) == 'string' and #text <= 10 and string.match(text, '^%d+$') and tonumber(text) <= 4294967295 then
    return tonumber(text), text
  end
  local last = redis.call('HGET', good, source)
  local shown = type(text) == 'string' and string.sub(text, 1, 40) or 'a value of another type'
  return tonumber(last or configured), nil, shown
end
