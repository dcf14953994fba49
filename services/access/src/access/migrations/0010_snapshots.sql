-- What the snapshots of doors are made of, for readers that are alone: the public states of the
-- other services once more, because a snapshot looks at all cards at once, and Redis has them for
-- one tap at a time. Everything here can be rebuilt from the state topics.

-- Who changes anything here locks this row first and takes the next number: so numbers are committed
-- in their order, and "all after the last number that I know" misses nothing.
CREATE TABLE snapshot_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence bigint NOT NULL CHECK (sequence >= 0)
);
INSERT INTO snapshot_clock (sequence) VALUES (0);

-- Until when each partition of the state topics was surely read to its end.
CREATE TABLE snapshot_progress (
    topic text NOT NULL,
    partition int NOT NULL,
    caught_up_at timestamptz NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE snapshot_card (
    card_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    credential bytea NOT NULL CHECK (octet_length(credential) = 32),
    member_id uuid NOT NULL,
    status text NOT NULL,
    -- What the pass of a phone or of a guest has besides.
    more jsonb,
    sequence bigint NOT NULL
);
CREATE INDEX snapshot_card_by_credential ON snapshot_card (credential, card_id DESC);
CREATE INDEX snapshot_card_by_member ON snapshot_card (member_id);
CREATE INDEX snapshot_card_by_sequence ON snapshot_card (sequence);
CREATE INDEX snapshot_card_withdrawn ON snapshot_card (sequence) WHERE status <> 'active';

-- `lost_places`: where the member ever was something else than now. `name`: see copass_tap.snapshots.
CREATE TABLE snapshot_member (
    member_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    name bytea NOT NULL CHECK (octet_length(name) = 8),
    status text NOT NULL,
    places jsonb NOT NULL,
    lost_places jsonb NOT NULL DEFAULT '{}',
    sequence bigint NOT NULL
);
CREATE INDEX snapshot_member_by_sequence ON snapshot_member (sequence);
CREATE INDEX snapshot_member_by_place ON snapshot_member USING gin (places);

CREATE TABLE snapshot_standing (
    member_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    standing text NOT NULL,
    sequence bigint NOT NULL
);
CREATE INDEX snapshot_standing_by_sequence ON snapshot_standing (sequence);

CREATE TABLE snapshot_reader (
    reader_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    city_id text NOT NULL,
    key_sha256 text NOT NULL,
    status text NOT NULL
);

CREATE TABLE snapshot_place (
    place_id uuid PRIMARY KEY,
    version bigint NOT NULL
);

-- `policy` is the document that a tap is decided by.
CREATE TABLE snapshot_door (
    door_id uuid PRIMARY KEY,
    place_id uuid NOT NULL REFERENCES snapshot_place ON DELETE CASCADE,
    city_id text NOT NULL,
    version bigint NOT NULL,
    readers text[] NOT NULL,
    policy jsonb NOT NULL,
    sequence bigint NOT NULL
);
CREATE INDEX snapshot_door_by_place ON snapshot_door (place_id);
CREATE INDEX snapshot_door_by_reader ON snapshot_door USING gin (readers);

-- A lockdown is told to readers in the same order as everything else.
ALTER TABLE place_lockdown ADD COLUMN sequence bigint NOT NULL DEFAULT 0;
