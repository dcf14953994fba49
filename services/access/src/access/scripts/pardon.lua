-- Pardon somebody until an instant. ARGV: key, member_id or '*', epoch seconds, seconds to keep it
local key, who, at, keep_seconds = unpack(ARGV)
local known = redis.call('HGET', key, who)
if not known or tonumber(at) > tonumber(known) then redis.call('HSET', key, who, at) end
redis.call('EXPIRE', key, keep_seconds)
return redis.status_reply('OK')
