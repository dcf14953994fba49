-- A transparency log per city: one entry per transfer, a Merkle tree over them (RFC 6962), signed
-- checkpoints. Filled after the transfers are posted; posting does not wait for it and pays nothing.

-- How far a log has come: its size, and the roots of its perfect subtrees, the largest first.
CREATE TABLE log_head (
    city_id text PRIMARY KEY REFERENCES book,
    size bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    roots bytea [] NOT NULL DEFAULT '{}',
    -- Why nothing is signed any more: others hold a later or another history.
    halted text
);

-- An account in the log: what it is called there, and how many of its postings are in entries.
-- The name is an HMAC of the account's id; without the salt nobody can show whose it is.
CREATE TABLE log_account (
    account_id uuid PRIMARY KEY REFERENCES account,
    name text NOT NULL UNIQUE CHECK (name ~ '^[0-9a-f]{32}$'),
    salt bytea CHECK (length(salt) = 32),
    version bigint NOT NULL CHECK (version >= 0)
);

CREATE TABLE log_entry (
    city_id text NOT NULL REFERENCES book,
    index bigint NOT NULL CHECK (index >= 0),
    transfer_id uuid NOT NULL UNIQUE,
    -- RFC 8785 JSON, as it was hashed.
    entry bytea NOT NULL,
    leaf_hash bytea NOT NULL CHECK (length(leaf_hash) = 32),
    PRIMARY KEY (city_id, index)
);

-- The nodes over 256 leaves and more; those below are computed from the leaves' hashes.
CREATE TABLE log_node (
    city_id text NOT NULL REFERENCES book,
    level int NOT NULL CHECK (level BETWEEN 8 AND 62),
    index bigint NOT NULL CHECK (index >= 0),
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (city_id, level, index)
);

-- Every checkpoint that was signed: one root per size, for ever.
CREATE TABLE log_checkpoint (
    city_id text NOT NULL REFERENCES book,
    size bigint NOT NULL CHECK (size > 0),
    root bytea NOT NULL CHECK (length(root) = 32),
    note text NOT NULL,
    signed_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, size)
);

CREATE TRIGGER log_entry_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entry
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_node_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON log_node
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_checkpoint_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON log_checkpoint
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT, UPDATE (size, roots, halted) ON log_head TO timebank_app;
GRANT SELECT, INSERT, UPDATE (salt, version) ON log_account TO timebank_app;
GRANT SELECT, INSERT ON log_entry, log_node, log_checkpoint TO timebank_app;
