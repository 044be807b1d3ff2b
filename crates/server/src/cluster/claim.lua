-- KEYS: leases on cameras. ARGV: who wants them, for how many ms.
-- Answers whose each of them is; false where it is the asker's from here on, and in a list why it is nobody's:
-- one key that others use for something else leaves the rest as they are.
local owners = {}
for index, key in ipairs(KEYS) do
  local owner = redis.pcall('GET', key)
  if type(owner) == 'table' then
    owners[index] = {owner.err}
  elseif owner and owner ~= ARGV[1] then
    owners[index] = owner
  else
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    owners[index] = false
  end
end
return owners
