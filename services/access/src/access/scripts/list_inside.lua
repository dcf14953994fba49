-- Who is inside, by entry, as of one instant. ARGV: place_id, epoch seconds since which one counts
-- Answers member_id, epoch seconds, zone or '' in turn.
local place_id, since = unpack(ARGV)
local people = redis.call('ZRANGEBYSCORE', 'inside:' .. place_id, '(' .. since, '+inf', 'WITHSCORES')
local answer = {}
for i = 1, #people, 2 do
    local zone = redis.call('HGET', 'where:' .. place_id, people[i])
    answer[#answer + 1] = people[i]
    answer[#answer + 1] = people[i + 1]
    answer[#answer + 1] = zone or ''
end
return answer
