-- Put before read.lua and commit.lua: how a tap leads to the documents that decide it.
-- A document is '<version> <rest>'; the keys and the rest are described in live_store.py.
-- Keys are derived from one another here, so Redis must be one primary, not a cluster.

local function version_of(document)
    return document and string.match(document, '^%d+') or '-'
end

-- A credential may have had several cards, one after the other: the active one counts, else the
-- newest (card ids are UUIDv7, which sort by time).
local function find_card(credential)
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

local function find_facts(door_id, reader_id, credential)
    local door, reader = unpack(redis.call('MGET', 'door:' .. door_id, 'reader:' .. reader_id))
    local lockdown = false
    if door then
        local place_id = string.match(door, '^%d+ (%S+)')
        local place
        place, lockdown = unpack(redis.call('MGET', 'place:' .. place_id, 'lockdown:' .. place_id))
        -- All doors of a place carry its version: one that stayed behind was taken away.
        if version_of(place) ~= version_of(door) then door = false end
    end
    local card_id, card = find_card(credential)
    local member, standing, member_id = false, false, false
    if card then
        member_id = string.match(card, '(%S+)$')
        member, standing = unpack(redis.call('MGET', 'member:' .. member_id, 'standing:' .. member_id))
    end
    local stamp = table.concat({
        version_of(door), version_of(reader), version_of(lockdown), card_id or '-',
        version_of(card), version_of(member), version_of(standing),
    }, ' ')
    return {
        door = door, reader = reader, lockdown = lockdown, card_id = card_id, card = card,
        member_id = member_id, member = member, standing = standing, stamp = stamp,
    }
end
