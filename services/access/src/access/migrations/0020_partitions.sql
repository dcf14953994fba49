-- The history by day: what is 30 days old goes as a whole table, in an instant, instead of row by
-- row. A decision_id is a UUIDv7, so its order is that of time, and it stays unique over all days.
-- squawk-ignore renaming-table
ALTER TABLE tap RENAME TO tap_other;
-- squawk-ignore renaming-object
ALTER INDEX tap_pkey RENAME TO tap_other_pkey;
-- squawk-ignore renaming-object
ALTER INDEX tap_by_city RENAME TO tap_other_by_city;
-- squawk-ignore renaming-object
ALTER INDEX tap_by_place RENAME TO tap_other_by_place;
-- squawk-ignore renaming-object
ALTER INDEX tap_by_member RENAME TO tap_other_by_member;
-- squawk-ignore renaming-object
ALTER INDEX tap_by_age RENAME TO tap_other_by_age;

CREATE TABLE tap (LIKE tap_other INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
PARTITION BY RANGE (decision_id);
ALTER TABLE tap ADD PRIMARY KEY (decision_id);
CREATE INDEX tap_by_city ON tap (city_id, decision_id DESC);
CREATE INDEX tap_by_place ON tap (place_id, decision_id DESC);
CREATE INDEX tap_by_member ON tap (member_id, decision_id DESC) WHERE member_id IS NOT NULL;
CREATE INDEX tap_by_age ON tap (occurred_at);
-- What was there, and whatever comes for a day without a table of its own: the worker moves it.
ALTER TABLE tap ATTACH PARTITION tap_other DEFAULT;
CREATE INDEX tap_by_reader ON tap (reader_id, decision_id DESC);
CREATE INDEX tap_by_door ON tap (door_id, decision_id DESC);

-- Who looked for whose taps, or at which place's: only ever added to.
CREATE TABLE history_look (
    look_id uuid PRIMARY KEY,
    looked_at timestamptz NOT NULL,
    looked_by text NOT NULL CHECK (length(looked_by) BETWEEN 1 AND 200),
    city_id text NOT NULL,
    place_id uuid,
    member_id uuid,
    -- The other filters, as they were asked.
    filters jsonb NOT NULL,
    taps integer NOT NULL CHECK (taps >= 0)
);
CREATE INDEX history_look_of_city ON history_look (city_id, look_id DESC);
CREATE INDEX history_look_of_member ON history_look (member_id, look_id DESC)
WHERE member_id IS NOT NULL;
CREATE TRIGGER history_look_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON history_look
FOR EACH STATEMENT EXECUTE FUNCTION only_added_to();

-- What a reader last said of itself.
CREATE TABLE reader_health (
    reader_id uuid PRIMARY KEY,
    city_id text NOT NULL,
    reported_at timestamptz NOT NULL,
    program text NOT NULL CHECK (length(program) BETWEEN 1 AND 100),
    snapshot_issued_at timestamptz,
    clock_offset_ms integer,
    backlog integer NOT NULL CHECK (backlog >= 0),
    oldest_waiting_at timestamptz,
    problems text [] NOT NULL DEFAULT '{}'
);
CREATE INDEX reader_health_of_city ON reader_health (city_id, reader_id);
