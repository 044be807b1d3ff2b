-- Reservations, releases and heartbeats of many viewers, one after the other, each answered by itself.
-- KEYS: 7 good limits; from 8, of each source that is named: its count, its limit;
--       then of each operation: reservation, metadata, heartbeat
-- ARGV: 4 epoch, 5 how many sources are named, 6 total, 7 limit of a user or empty, 8 first life in ms,
--       9 most leases; from 10, of each source: id, configured limit;
--       then of each operation: what, id, and of "reserve": source, camera, user, quality, class, camera's
--       name; of "heartbeat": how long it asks for in ms
local is_ours = redis.call('GET', epoch) == ARGV[4]
local total_limit, user_limit = tonumber(ARGV[6]), tonumber(ARGV[7])
local first_life, most = tonumber(ARGV[8]), tonumber(ARGV[9])

-- What is known of the sources that are named, by their ids.
local named, place = {}, 10
local key = 8
for _ = 1, tonumber(ARGV[5]) do
  named[ARGV[place]] = { configured = ARGV[place + 1], count = KEYS[key], limit_key = KEYS[key + 1] }
  place, key = place + 2, key + 2
end

local function limit_of_named(id)
  local source = named[id]
  if not source.limit then
    source.limit = limit_of(id, source.configured, source.limit_key, KEYS[7])
  end
  return source.limit
end

-- How many leases of a camera count against a limit.
local function of_camera(scope, newcomer, other)
  local from = scope.name == 'user' and 'u/' .. newcomer.user or 's/' .. other.source
  return count(from .. '/' .. other.watched)
end

local function counts(scope, newcomer, other)
  return scope.name == 'total' or (scope.name == 'source' and other.source == newcomer.source)
    or (scope.name == 'user' and other.user == newcomer.user)
end

local function members(scope)
  local list = {}
  for _, member in ipairs(below(scope.from)) do
    local watched, other = string.match(member, '([^/]+)/([^/]+)$')
    list[#list + 1] = { id = other, watched = watched }
  end
  return list
end

-- When one unit is free again if nothing is renewed.
local function free_at(scope)
  if scope.limit == 0 then
    return ''
  end
  local later = math.max(scope.current - scope.limit, 0)
  if unit == 'viewer' and scope.name == 'total' then
    return redis.call('ZRANGE', leases, later, later, 'WITHSCORES')[2] or ''
  end
  local ends, last = {}, {}
  for _, member in ipairs(members(scope)) do
    local expires = tonumber(redis.call('ZSCORE', leases, member.id) or now)
    if unit == 'viewer' then
      ends[#ends + 1] = expires
    else
      last[member.watched] = math.max(last[member.watched] or 0, expires)
    end
  end
  for _, expires in pairs(last) do
    ends[#ends + 1] = expires
  end
  table.sort(ends)
  return ends[later + 1] and whole(ends[later + 1]) or ''
end

local function refused(scope)
  return { 'full', scope.name, scope.current, scope.limit, free_at(scope) }
end

-- How far a limit is used, of `all` leases.
local function used(scope, all)
  if unit == 'camera' then
    return count(scope.cameras)
  elseif scope.name == 'total' then
    return all
  elseif scope.name == 'source' then
    return viewers_of(scope.source)
  end
  return count(scope.from)
end

-- The limits that a newcomer would go beyond, in the order in which they are named, and whether one
-- unit less is enough for all of them.
local function full_for(newcomer, all)
  local scopes = {
    { name = 'source', source = newcomer.source, from = 's/' .. newcomer.source, cameras = 'w/' .. newcomer.source,
      limit = limit_of_named(newcomer.source) },
    { name = 'total', from = 's', cameras = 'w', limit = total_limit },
  }
  if user_limit then
    table.insert(scopes, 1,
      { name = 'user', from = 'u/' .. newcomer.user, cameras = 'v/' .. newcomer.user, limit = user_limit })
  end
  local full, one_is_enough = {}, true
  for _, scope in ipairs(scopes) do
    scope.current = used(scope, all)
    if scope.current >= scope.limit and (unit == 'viewer' or of_camera(scope, newcomer, newcomer) == 0) then
      full[#full + 1] = scope
      one_is_enough = one_is_enough and scope.current == scope.limit
    end
  end
  return full, one_is_enough
end

-- Of the leases of a lower class that free a unit of all full limits, the one that was used longest ago.
local function victim(full, newcomer)
  local found
  for _, member in ipairs(members(full[1])) do
    local other = read(member.id)
    local fits = other and other.class < newcomer.class
    for _, scope in ipairs(full) do
      fits = fits and counts(scope, newcomer, other) and (unit == 'viewer' or of_camera(scope, newcomer, other) == 1)
    end
    if fits then
      local last = other.last or other.created
      if not found or last < found.last or (last == found.last and member.id < found.id) then
        found = { id = member.id, last = last }
      end
    end
  end
  return found and found.id
end

local function reserve(id, newcomer, name, keys)
  if not is_ours then
    return { 'flushed' }
  end
  if redis.call('HEXISTS', records, id) == 1 then
    return { 'taken' }
  end
  local all = all_leases()
  if all >= most then
    return refused({ name = 'total', from = 's', current = all, limit = most })
  end
  local full, one_is_enough = full_for(newcomer, all)
  if #full > 0 then
    local gives_way = newcomer.class > 0 and one_is_enough and victim(full, newcomer)
    if not gives_way then
      return refused(full[1])
    end
    finish(gives_way, 'preempted', id)
  end
  local expires = now + first_life
  local record = insert(id, newcomer, expires)
  show(id, newcomer, expires, keys, name)
  named[newcomer.source].changed = true
  return { 'reserved', record, whole(expires), units_of(newcomer.source), limit_of_named(newcomer.source) }
end

local function release(id, keys)
  local record = redis.call('HGET', records, id)
  local lease = record and parse(record)
  if not lease then
    return { 'unknown' }
  end
  local expires = redis.call('ZSCORE', leases, id) or whole(now)
  remove(id, lease)
  redis.call('UNLINK', keys[1], keys[2], keys[3])
  if named[lease.source] then
    named[lease.source].changed = true
  else
    redis.call('HSET', mirrors, lease.source, 'stale')
  end
  if lease.owner ~= node then
    log_ended(id, lease, 'released', '')
  end
  return { 'released', record, expires, units_of(lease.source) }
end

local function heartbeat(id, extend, keys)
  local lease = read(id)
  if lease and redis.call('EXISTS', keys[1]) == 0 then
    finish(id, 'deleted', '')
    lease = nil
  end
  if not lease then
    return { 'unknown' }
  end
  local expires = tonumber(redis.call('ZSCORE', leases, id) or now)
  if not lease.last then
    expires = math.max(expires, now + extend)
    redis.call('ZADD', leases, whole(expires), id)
  end
  show_renewed(id, lease, expires, keys)
  return { 'renewed', pack(lease), whole(expires), units_of(lease.source) }
end

-- What ended by its time ended before all of them, and is told with the first.
expire()
local answers, were = {}, {}
while place <= #ARGV do
  local what, id = ARGV[place], ARGV[place + 1]
  local keys = { KEYS[key], KEYS[key + 1], KEYS[key + 2] }
  local done
  if what == 'reserve' then
    local source, camera, user, quality, class, name = unpack(ARGV, place + 2, place + 7)
    done = reserve(id, { source = source, camera = camera, user = user, quality = quality, class = tonumber(class),
      created = now, owner = node, watched = source .. ':' .. camera }, name, keys)
    place = place + 8
  elseif what == 'release' then
    done = release(id, keys)
    place = place + 2
  else
    done = heartbeat(id, tonumber(ARGV[place + 2]), keys)
    place = place + 3
  end
  key = key + 3
  answers[#answers + 1] = { told, unpack(done) }
  told = {}
end
for id, source in pairs(named) do
  if source.changed then
    redis.call('SET', source.count, whole(viewers_of(id)))
  end
end
return answer('each', answers)
