-- Step 1 of a tap: everything that the decision rests on, as of one instant.
-- ARGV: door_id, reader_id, credential hash, tap_id, epoch seconds since which an entry counts
-- A document is '<version> <rest>'; the keys and the rest are described in live_store.py.
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
local place_id = door and string.match(door, '^%d+ (%S+)')

local lockdown, member, standing, people, entered = false, false, false, 0, false
if door then
    local place
    place, lockdown, member, standing = unpack(redis.call('MGET',
        'place:' .. place_id, 'lockdown:' .. place_id,
        'member:' .. (member_id or ''), 'standing:' .. (member_id or '')))
    -- All doors of a place carry its version: one that stayed behind was taken away.
    if not place or string.match(place, '^%d+') ~= string.match(door, '^%d+') then door = false end
    people = redis.call('ZCOUNT', 'inside:' .. place_id, '(' .. since, '+inf')
    entered = member_id and redis.call('ZSCORE', 'inside:' .. place_id, member_id)
end
return {
    ready, generation, changed_at, previous, door, reader, lockdown, card_id, card,
    member, standing, people, entered, counter,
}
