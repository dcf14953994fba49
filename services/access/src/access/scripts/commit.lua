-- Step 3 of a tap: record the decision, if what it rests on still holds. All or nothing.
-- Answers {'repeated', first answer}, {'changed'} (read and decide again) or {'recorded'}.
local credential, tap_key, generation, changed_at, answer, keep_seconds, event,
    place_id, member_id, movement, now, since, capacity, needs_outside, counter = unpack(ARGV)

local previous, generation_now, changed_at_now = unpack(redis.call('MGET',
    tap_key, 'projection:generation', 'projection:changed_at'))
if previous then return {'repeated', previous} end

-- No document was written since they were read, in the same Redis: they are what they were.
if generation_now ~= generation or (changed_at_now or '') ~= changed_at then return {'changed'} end

local inside = 'inside:' .. place_id
if movement == 'enter' then
    redis.call('ZREMRANGEBYSCORE', inside, '-inf', since)
    if capacity ~= '' or needs_outside == '1' then
        local entered = redis.call('ZSCORE', inside, member_id)
        if entered and needs_outside == '1' then return {'changed'} end
        if not entered and capacity ~= '' and redis.call('ZCARD', inside) >= tonumber(capacity) then
            return {'changed'}
        end
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
redis.call('XADD', 'taps', '*', 'event', event)
return {'recorded'}
