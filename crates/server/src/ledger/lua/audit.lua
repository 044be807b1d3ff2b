-- Ends leases whose reservation somebody deleted, and writes anew what somebody changed in one.
-- KEYS: from 7 a reservation each    ARGV: from 4 its id
expire()
local changed = {}
for place = 4, #ARGV do
  local id, key = ARGV[place], KEYS[place + 3]
  local lease = read(id)
  if lease then
    -- Of another type it is an error, whose fields are none.
    local shown = redis.pcall('HMGET', key, 'source', 'camera_id')
    if shown[1] ~= lease.source or shown[2] ~= lease.camera then
      if redis.call('EXISTS', key) == 0 then
        finish(id, 'deleted', '')
      else
        show_reservation(lease, tonumber(redis.call('ZSCORE', leases, id) or now), key)
        changed[#changed + 1] = id
      end
    end
  end
end
return answer('audited', changed)
