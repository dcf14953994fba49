-- Every tap that was answered, once: kept 30 days, then only as counts.
CREATE TABLE tap (
    decision_id uuid PRIMARY KEY,
    tap_id uuid NOT NULL,
    door_id uuid NOT NULL,
    place_id uuid NOT NULL,
    city_id text NOT NULL,
    reader_id uuid NOT NULL,
    card_id uuid,
    member_id uuid,
    direction text NOT NULL CHECK (direction IN ('in', 'out')),
    mode text NOT NULL CHECK (mode IN ('live', 'replay')),
    decision text NOT NULL CHECK (decision IN ('grant', 'deny')),
    reason text NOT NULL,
    occurred_at timestamptz NOT NULL,
    decided_at timestamptz NOT NULL,
    policy_version bigint NOT NULL,
    stream_id text NOT NULL
);

-- decision_id is a UUIDv7: within an index it is also the order in time.
CREATE INDEX tap_by_city ON tap (city_id, decision_id DESC);
CREATE INDEX tap_by_place ON tap (place_id, decision_id DESC);
CREATE INDEX tap_by_member ON tap (member_id, decision_id DESC) WHERE member_id IS NOT NULL;
CREATE INDEX tap_by_age ON tap (occurred_at);

-- What is left of a tap after 30 days. `day` is in UTC.
CREATE TABLE tap_daily_count (
    place_id uuid NOT NULL,
    city_id text NOT NULL,
    day date NOT NULL,
    direction text NOT NULL,
    decision text NOT NULL,
    reason text NOT NULL,
    taps bigint NOT NULL CHECK (taps > 0),
    PRIMARY KEY (place_id, day, direction, decision, reason)
);

-- A place closed for safety. Here because Redis may be lost, and a lockdown must not be.
CREATE TABLE place_lockdown (
    place_id uuid PRIMARY KEY,
    city_id text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    active boolean NOT NULL,
    reason text NOT NULL,
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL
);

-- How many documents of each kind the projection had when it was last complete: when Redis and the
-- broker's log are both lost, an empty log is not mistaken for all there is.
CREATE TABLE projection_memory (
    kind text PRIMARY KEY,
    documents bigint NOT NULL CHECK (documents >= 0)
);
