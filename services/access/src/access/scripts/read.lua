-- Step 1 of a tap: everything that the decision rests on, as of one instant.
-- ARGV: door_id, reader_id, credential hash, tap_id, epoch seconds since which an entry counts
-- A document is '<version> <rest>'; the keys and the rest are described in live_store.py.
-- Answers scene and host only where the door or the guest asks: most taps pay nothing for them.
-- Keys are derived from one another here, so Redis must be one primary, not a cluster.
local door_id, reader_id, credential, tap_id, since = unpack(ARGV)

-- A credential may have had several cards, one after the other: the active one counts, else the
-- newest (card ids are UUIDv7, which sort by time).
local function find_card()
    local cards = redis.call('HGETALL', 'card:' .. credential)
    local card_id, card, best = false, false, ''
    for i = 1, #cards, 2 do
        local rank = (string.find(cards[i + 1], '^%d+ active ') and '1' or '0') .. cards[i]
        if rank > best then
            card_id, card, best = cards[i], cards[i + 1], rank
        end
    end
    return card_id, card
end

local ready, generation, changed_at, previous, counter, reader, door = unpack(redis.call('MGET',
    'projection:ready', 'projection:generation', 'projection:changed_at',
    'tap:' .. reader_id .. ':' .. tap_id, 'counter:' .. credential,
    'reader:' .. reader_id, 'door:' .. door_id))
local card_id, card = find_card()
local member_id = card and string.match(card, '(%S+)$')
local place_id, asks
if door then place_id, asks = string.match(door, '^%d+ (%S+) (%+?)') end

local lockdown, member, standing, people, entered = false, false, false, 0, false
local scene, host_entered = false, false
if door then
    local place
    place, lockdown, member, standing = unpack(redis.call('MGET',
        'place:' .. place_id, 'lockdown:' .. place_id,
        'member:' .. (member_id or ''), 'standing:' .. (member_id or '')))
    -- All doors of a place carry its version: one that stayed behind was taken away.
    if not place or string.match(place, '^%d+') ~= string.match(door, '^%d+') then door = false end
    people = redis.call('ZCOUNT', 'inside:' .. place_id, '(' .. since, '+inf')
    entered = member_id and redis.call('ZSCORE', 'inside:' .. place_id, member_id)
    if door and asks == '+' then
        -- What only some doors ask, see documents.scene_asked.
        local asked = cjson.decode(string.match(door, '^%d+ %S+ %+(%S+)'))
        local zone, pardons, in_function, in_charge, came, unlocked = false, {}, 0, 0, {}, false
        if asked.zones then zone = redis.call('HGET', 'where:' .. place_id, member_id or '') end
        if asked.passback then
            pardons = redis.call('HMGET', 'pardon:' .. place_id, member_id or '', '*')
        end
        for _, one in ipairs(asked.function_zones or {}) do
            in_function = in_function
                + redis.call('ZCOUNT', 'inside:' .. place_id .. ':' .. one, '(' .. since, '+inf')
        end
        if asked.charge then
            local zones = asked.is_charge_local and asked.function_zones
            in_charge = count_in_charge(place_id, since, zones)
            came = redis.call('HMGET', 'charged:' .. place_id, unpack(zones or { '*' }))
        end
        if asked.interlock then
            unlocked = redis.call('GET', 'interlock:' .. place_id .. ':' .. asked.interlock)
        end
        scene = { zone, pardons, in_function, in_charge, came, unlocked }
    end
    local limits = card and string.match(card, '^%d+ %S+ ({%S+)')
    local host = limits and string.match(limits, '"host_member_id":"([^"]+)"')
    if host then host_entered = redis.call('ZSCORE', 'inside:' .. place_id, host) end
end
return {
    ready, generation, changed_at, previous, door, reader, lockdown, card_id, card,
    member, standing, people, entered, counter, scene, host_entered,
}
