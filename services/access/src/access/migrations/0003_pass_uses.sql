-- The newest code of a phone that was used at each door, and by which tap. Here because Redis may be
-- lost and rebuilt while the code is still good. Forgotten when no tap can show it any more.
CREATE TABLE pass_use (
    credential_hash text NOT NULL CHECK (credential_hash ~ '^[0-9a-f]{64}$'),
    door_id uuid NOT NULL,
    -- Of 30 seconds, since 1970.
    window_number bigint NOT NULL CHECK (window_number BETWEEN 0 AND 4294967295),
    reader_id uuid NOT NULL,
    tap_id uuid NOT NULL,
    PRIMARY KEY (credential_hash, door_id)
-- Room in each page: a newer code stays there and touches no index.
) WITH (fillfactor = 70);
