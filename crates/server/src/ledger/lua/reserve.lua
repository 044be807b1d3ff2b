-- KEYS: 7 reservation, 8 metadata, 9 heartbeat, 10 the source's count, 11 its limit, 12 good limits
-- ARGV: 4 epoch, 5 id, 6 record, 7 camera's name, 8 configured limit, 9 total, 10 limit of a user or empty,
--       11 first life in ms, 12 most leases
local id, lease, name = ARGV[5], parse(ARGV[6]), ARGV[7]
if redis.call('GET', epoch) ~= ARGV[4] then
  return { 'flushed' }
end
expire()
if redis.call('HEXISTS', records, id) == 1 then
  return answer('taken')
end
lease.created = now
local source_limit = limit_of(lease.source, ARGV[8], KEYS[11], KEYS[12])

local scopes = {
  { name = 'source', from = 's/' .. lease.source, cameras = 'w/' .. lease.source, limit = source_limit },
  { name = 'total', from = 's', cameras = 'w', limit = tonumber(ARGV[9]) },
}
if ARGV[10] ~= '' then
  table.insert(scopes, 1,
    { name = 'user', from = 'u/' .. lease.user, cameras = 'v/' .. lease.user, limit = tonumber(ARGV[10]) })
end

-- How many leases of a camera count against a limit.
local function of_camera(scope, other)
  local from = scope.name == 'user' and 'u/' .. lease.user or 's/' .. other.source
  return count(from .. '/' .. other.watched)
end

local function counts(scope, other)
  return scope.name == 'total' or (scope.name == 'source' and other.source == lease.source)
    or (scope.name == 'user' and other.user == lease.user)
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
  return answer('full', scope.name, scope.current, scope.limit, free_at(scope))
end

local all = redis.call('ZCARD', leases)
if all >= tonumber(ARGV[12]) then
  return refused({ name = 'total', from = 's', current = all, limit = tonumber(ARGV[12]) })
end
local full, one_is_enough = {}, true
for _, scope in ipairs(scopes) do
  if unit == 'viewer' and scope.name == 'total' then
    scope.current = all
  else
    scope.current = count(unit == 'camera' and scope.cameras or scope.from)
  end
  if scope.current >= scope.limit and (unit == 'viewer' or of_camera(scope, lease) == 0) then
    full[#full + 1] = scope
    one_is_enough = one_is_enough and scope.current == scope.limit
  end
end

-- Of the leases of a lower class that free a unit of all full limits, the one that was used longest ago.
local function victim()
  local found
  for _, member in ipairs(members(full[1])) do
    local other = read(member.id)
    local fits = other and other.class < lease.class
    for _, scope in ipairs(full) do
      fits = fits and counts(scope, other) and (unit == 'viewer' or of_camera(scope, other) == 1)
    end
    if fits then
      local used = other.last or other.created
      if not found or used < found.used or (used == found.used and member.id < found.id) then
        found = { id = member.id, used = used }
      end
    end
  end
  return found and found.id
end

if #full > 0 then
  local gives_way = lease.class > 0 and one_is_enough and victim()
  if not gives_way then
    return refused(full[1])
  end
  finish(gives_way, 'preempted', id)
end
local expires = now + tonumber(ARGV[11])
insert(id, lease, expires)
show(id, lease, expires, { KEYS[7], KEYS[8], KEYS[9] }, name)
local viewers = count('s/' .. lease.source)
redis.call('SET', KEYS[10], viewers)
local units = unit == 'viewer' and viewers or units_of(lease.source)
return answer('reserved', pack(lease), whole(expires), units, source_limit)
