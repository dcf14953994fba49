-- Which taps used a message of a cryptographic card. One is right; two doors that were alone may
-- both have opened to the same one, which is looked at by people. Kept as long as taps.
CREATE TABLE message_use (
    credential_hash text NOT NULL CHECK (credential_hash ~ '^[0-9a-f]{64}$'),
    counter bigint NOT NULL CHECK (counter >= 0),
    reader_id uuid NOT NULL,
    tap_id uuid NOT NULL,
    door_id uuid NOT NULL,
    mode text NOT NULL CHECK (mode IN ('live', 'replay')),
    occurred_at timestamptz NOT NULL,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (credential_hash, counter, reader_id, tap_id)
);
CREATE INDEX message_use_by_age ON message_use (noted_at);

-- The same message at another tap than the first that told of it.
CREATE TABLE message_conflict (
    conflict_id uuid PRIMARY KEY,
    credential_hash text NOT NULL,
    counter bigint NOT NULL,
    city_ids text[] NOT NULL,
    first_door_id uuid NOT NULL,
    first_reader_id uuid NOT NULL,
    first_tap_id uuid NOT NULL,
    first_occurred_at timestamptz NOT NULL,
    second_door_id uuid NOT NULL,
    second_reader_id uuid NOT NULL,
    second_tap_id uuid NOT NULL,
    second_occurred_at timestamptz NOT NULL,
    found_at timestamptz NOT NULL,
    UNIQUE (credential_hash, counter, first_tap_id, second_tap_id)
);
CREATE INDEX message_conflict_by_city ON message_conflict USING gin (city_ids);
CREATE INDEX message_conflict_by_age ON message_conflict (found_at);
