-- Who is where in a place; before read.lua and commit.lua, which both ask.

-- How many of those in charge are inside; with `zones`, in one of these.
local function count_in_charge(place_id, since, zones)
    local people = redis.call('ZRANGEBYSCORE', 'charge:' .. place_id, '(' .. since, '+inf')
    if not zones then return #people end
    local wanted, count = {}, 0
    for _, zone in ipairs(zones) do wanted[zone] = true end
    for _, person in ipairs(people) do
        if wanted[redis.call('HGET', 'where:' .. place_id, person)] then count = count + 1 end
    end
    return count
end
