-- Step 3 of a tap: record the decision, if what it rests on still holds. All or nothing.
-- Answers {'repeated', first answer}, {'changed'} (read and decide again) or {'recorded', stream id}.
local door_id, reader_id, credential, tap_id, stamp, answer, keep_seconds, event,
    place_id, member_id, movement, now, since, capacity, needs_outside, counter = unpack(ARGV)

local tap_key = 'tap:' .. reader_id .. ':' .. tap_id
local previous = redis.call('GET', tap_key)
if previous then return {'repeated', previous} end

if find_facts(door_id, reader_id, credential).stamp ~= stamp then return {'changed'} end

local inside = 'inside:' .. place_id
if movement == 'enter' then
    redis.call('ZREMRANGEBYSCORE', inside, '-inf', since)
    local entered = redis.call('ZSCORE', inside, member_id)
    if entered and needs_outside == '1' then return {'changed'} end
    if not entered and capacity ~= '' and redis.call('ZCARD', inside) >= tonumber(capacity) then
        return {'changed'}
    end
end
if counter ~= '' then
    local last = redis.call('GET', 'counter:' .. credential)
    if last and tonumber(last) >= tonumber(counter) then return {'changed'} end
    redis.call('SET', 'counter:' .. credential, counter)
end

if movement == 'enter' then
    redis.call('ZADD', inside, now, member_id)
elseif movement == 'leave' and member_id ~= '' then
    redis.call('ZREM', inside, member_id)
end
redis.call('SET', tap_key, answer, 'EX', keep_seconds)
return {'recorded', redis.call('XADD', 'taps', '*', 'event', event)}
