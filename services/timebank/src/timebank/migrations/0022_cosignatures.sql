-- Cities cosign each other's checkpoints, so that none can show two histories.

-- What others said of our checkpoints: a signature line each, and when it was made.
CREATE TABLE log_cosignature (
    city_id text NOT NULL REFERENCES book,
    size bigint NOT NULL CHECK (size > 0),
    cosigner text NOT NULL CHECK (cosigner ~ '^[a-z][a-z0-9-]{1,39}$'),
    line text NOT NULL CHECK (length(line) <= 500),
    signed_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, size, cosigner)
);
CREATE INDEX log_cosignature_last ON log_cosignature (city_id, cosigner, size);

-- What a city of ours last cosigned of another's log: the note as it was published.
CREATE TABLE log_seen (
    cosigner text NOT NULL REFERENCES book,
    city_id text NOT NULL CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    size bigint NOT NULL CHECK (size > 0),
    root bytea NOT NULL CHECK (length(root) = 32),
    note text NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (cosigner, city_id),
    CHECK (cosigner <> city_id)
);

-- A cosigner never goes back, nor to another root of the same size.
CREATE FUNCTION check_log_seen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size <= OLD.size THEN
        RAISE EXCEPTION '% cosigned % entries of % already', OLD.cosigner, OLD.size, OLD.city_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER log_seen_only_grows BEFORE UPDATE ON log_seen
FOR EACH ROW EXECUTE FUNCTION check_log_seen();
CREATE TRIGGER log_seen_stays BEFORE DELETE OR TRUNCATE ON log_seen
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_cosignature_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON log_cosignature
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON log_cosignature TO timebank_app;
GRANT SELECT, INSERT, UPDATE (size, root, note, seen_at) ON log_seen TO timebank_app;
