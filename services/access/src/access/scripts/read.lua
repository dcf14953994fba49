-- Step 1 of a tap: everything that the decision rests on, as of one instant.
-- ARGV: door_id, reader_id, credential hash, tap_id, epoch seconds since which an entry counts
local door_id, reader_id, credential, tap_id, since = unpack(ARGV)
local facts = find_facts(door_id, reader_id, credential)
local people, entered = 0, false
if facts.door then
    local inside = 'inside:' .. string.match(facts.door, '^%d+ (%S+)')
    people = redis.call('ZCOUNT', inside, '(' .. since, '+inf')
    entered = facts.member_id and redis.call('ZSCORE', inside, facts.member_id)
end
local ready, previous, counter = unpack(redis.call(
    'MGET', 'projection:ready', 'tap:' .. reader_id .. ':' .. tap_id, 'counter:' .. credential))
return {
    ready, previous, facts.door, facts.reader, facts.lockdown, facts.card_id, facts.card,
    facts.member, facts.standing, people, entered, counter, facts.stamp,
}
