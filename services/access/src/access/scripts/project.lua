-- Write a batch of documents and the offsets reached with it, together or not at all.
-- ARGV: generation, number of offsets, (partition, next offset)…, then (key, field, version, value)…
-- An empty field means a plain key; an empty value means that the thing is gone.
-- Answers how many documents were newer than what was there, or nil when Redis was flushed.
if redis.call('GET', 'projection:generation') ~= ARGV[1] then return false end

local first = 3 + 2 * tonumber(ARGV[2])
for i = 3, first - 1, 2 do
    redis.call('HSET', 'projection:offsets', ARGV[i], ARGV[i + 1])
end

local written, removed, added = 0, 0, {}
for i = first, #ARGV, 4 do
    local key, field, version, value = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
    local known
    if field == '' then known = redis.call('GET', key) else known = redis.call('HGET', key, field) end
    local kind = string.match(key, '^%a+')
    if value == '' then
        if known then
            added[kind] = (added[kind] or 0) - 1
            removed = removed + 1
        end
        if field == '' then redis.call('DEL', key) else redis.call('HDEL', key, field) end
    elseif not known or version > tonumber(string.match(known, '^%d+')) then
        if not known then added[kind] = (added[kind] or 0) + 1 end
        if field == '' then redis.call('SET', key, value) else redis.call('HSET', key, field, value) end
        written = written + 1
    end
end
for kind, count in pairs(added) do redis.call('HINCRBY', 'projection:documents', kind, count) end
-- A tap between its two steps sees by this that what it read may have changed. A time, not a count:
-- a server that crashed and lost its last second would count to the same number twice.
if written + removed > 0 then
    redis.call('SET', 'projection:changed_at', table.concat(redis.call('TIME'), '.'))
end
return written
