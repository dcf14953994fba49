-- Step 3 of a tap: record the decision, if what it rests on still holds. All or nothing.
-- Answers {'repeated', first answer}, {'changed'} (read and decide again) or {'recorded'}.
local credential, tap_key, generation, changed_at, answer, keep_seconds, event,
    place_id, member_id, movement, now, since, capacity, counter, extras = unpack(ARGV)

local previous, generation_now, changed_at_now = unpack(redis.call('MGET',
    tap_key, 'projection:generation', 'projection:changed_at'))
if previous then return {'repeated', previous} end

-- No document was written since they were read, in the same Redis: they are what they were.
if generation_now ~= generation or (changed_at_now or '') ~= changed_at then return {'changed'} end

local inside = 'inside:' .. place_id
if movement == 'enter' then
    redis.call('ZREMRANGEBYSCORE', inside, '-inf', since)
    if capacity ~= '' and not redis.call('ZSCORE', inside, member_id)
        and redis.call('ZCARD', inside) >= tonumber(capacity) then
        return {'changed'}
    end
end

-- What only some doors ask; live_store.scene_kept says what is in it.
local keep_scene
if extras ~= '' then
    local more = cjson.decode(extras)
    local where = 'where:' .. place_id

    local function is_as_it_was()
        local entered = redis.call('ZSCORE', inside, member_id)
        local zone = entered and more.zones and redis.call('HGET', where, member_id)
        if more.alone then
            local unlocked = redis.call('GET', 'interlock:' .. place_id .. ':' .. more.interlock)
            if unlocked and unlocked ~= more.door then return false end
        end
        if more.unmoved and ((entered or '') ~= more.entered or (zone or '') ~= more.was) then
            return false
        end
        if more.function_capacity then
            local people, has_seat = 0, false
            for _, one in ipairs(more.function_zones) do
                people = people
                    + redis.call('ZCOUNT', inside .. ':' .. one, '(' .. since, '+inf')
                has_seat = has_seat or zone == one
            end
            if not has_seat and people >= more.function_capacity then return false end
        end
        return not more.charge
            or count_in_charge(place_id, since, more.is_charge_local and more.function_zones) > 0
    end
    if not is_as_it_was() then return {'changed'} end

    local function put_into(zone)
        local was = redis.call('HGET', where, member_id)
        if was and was ~= zone then redis.call('ZREM', inside .. ':' .. was, member_id) end
        if zone then
            redis.call('ZREMRANGEBYSCORE', inside .. ':' .. zone, '-inf', since)
            redis.call('ZADD', inside .. ':' .. zone, now, member_id)
            redis.call('HSET', where, member_id, zone)
        else
            redis.call('HDEL', where, member_id)
        end
    end

    function keep_scene()
        local is_inside = member_id ~= '' and redis.call('ZSCORE', inside, member_id)
        if more.zones and member_id ~= '' and (is_inside or movement == 'leave') then
            put_into(is_inside and more.zone)
            if redis.call('ZCARD', inside) == 0 then redis.call('DEL', where) end
        end
        if movement == 'enter' and more.in_charge then
            redis.call('ZREMRANGEBYSCORE', 'charge:' .. place_id, '-inf', since)
            redis.call('ZADD', 'charge:' .. place_id, now, member_id)
            redis.call('HSET', 'charged:' .. place_id, '*', now)
            if more.zone then redis.call('HSET', 'charged:' .. place_id, more.zone, now) end
        elseif movement == 'enter' then
            redis.call('ZREM', 'charge:' .. place_id, member_id)
        end
        if more.interlock then
            redis.call('SET', 'interlock:' .. place_id .. ':' .. more.interlock, more.door,
                'PX', more.hold_ms)
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
elseif movement == 'move' and member_id ~= '' then
    redis.call('ZREMRANGEBYSCORE', inside, '-inf', since)
    redis.call('ZADD', inside, 'XX', now, member_id)
elseif movement == 'leave' and member_id ~= '' then
    redis.call('ZREM', inside, member_id)
    redis.call('ZREM', 'charge:' .. place_id, member_id)
end
if keep_scene then keep_scene() end
redis.call('SET', tap_key, answer, 'EX', keep_seconds)
redis.call('XADD', 'taps', '*', 'event', event)
return {'recorded'}
