-- A city's key is handed over to the next one by a statement that both sign.

-- Of all cities that are known, ours and others'. The first key has no statement: it is the
-- `old_key` of the second's, or that of `city_key` and `peer_city` where nothing was handed over.
CREATE TABLE key_handover (
    city_id text NOT NULL CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    number int NOT NULL CHECK (number BETWEEN 2 AND 100),
    old_key bytea NOT NULL CHECK (length(old_key) = 32),
    new_key bytea NOT NULL CHECK (length(new_key) = 32),
    -- The new key signs the checkpoints from this many entries on.
    from_size bigint NOT NULL CHECK (from_size > 0),
    -- Until when messages under the old key are believed.
    believed_until timestamptz NOT NULL,
    statement text NOT NULL CHECK (length(statement) <= 2000),
    kept_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, number),
    UNIQUE (city_id, old_key),
    UNIQUE (city_id, new_key),
    CHECK (old_key <> new_key)
);
CREATE TRIGGER key_handover_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON key_handover
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Keys that were told of a city and that nothing hands over to: each once.
CREATE TABLE key_alarm (
    city_id text NOT NULL CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    told_sha256 bytea NOT NULL CHECK (length(told_sha256) = 32),
    told jsonb NOT NULL,
    why text NOT NULL,
    heard_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, told_sha256)
);
CREATE TRIGGER key_alarm_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON key_alarm
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Which of the city's keys this is: 1 for the first.
ALTER TABLE city_key ADD COLUMN number int NOT NULL DEFAULT 1;
ALTER TABLE city_key ADD CONSTRAINT city_key_number CHECK (number BETWEEN 1 AND 100) NOT VALID;

-- No key takes the place of another without the statement that hands over to it.
CREATE FUNCTION check_city_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.city_id <> OLD.city_id OR NEW.number <> OLD.number + 1 OR NOT EXISTS (
        SELECT FROM key_handover WHERE city_id = NEW.city_id AND number = NEW.number
        AND old_key = OLD.public_key AND new_key = NEW.public_key
    ) THEN
        RAISE EXCEPTION 'the key of % was not handed over', OLD.city_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER city_key_handed_over BEFORE UPDATE ON city_key
FOR EACH ROW EXECUTE FUNCTION check_city_key();
CREATE TRIGGER city_key_stays BEFORE DELETE OR TRUNCATE ON city_key
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON key_handover, key_alarm TO timebank_app;
GRANT UPDATE (public_key, sealed_key, number, created_at) ON city_key TO timebank_app;
