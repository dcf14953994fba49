-- The highest counter that a cryptographic card was answered for, and for which tap. Here because
-- Redis may be lost, and a message that was used must not open a door again.
CREATE TABLE card_counter (
    credential_hash text PRIMARY KEY CHECK (credential_hash ~ '^[0-9a-f]{64}$'),
    counter int NOT NULL CHECK (counter BETWEEN 0 AND 16777215),
    reader_id uuid NOT NULL,
    tap_id uuid NOT NULL
-- Room in each page: a new counter stays there and touches no index.
) WITH (fillfactor = 70);
