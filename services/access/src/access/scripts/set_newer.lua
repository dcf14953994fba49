-- Set plain documents that are newer than what is there. ARGV: (key, version, value)…
local written = 0
for i = 1, #ARGV, 3 do
    local known = redis.call('GET', ARGV[i])
    if not known or tonumber(ARGV[i + 1]) > tonumber(string.match(known, '^%d+')) then
        redis.call('SET', ARGV[i], ARGV[i + 2])
        written = written + 1
    end
end
if written > 0 then -- see project.lua
    redis.call('SET', 'projection:changed_at', table.concat(redis.call('TIME'), '.'))
end
return written
