-- When a log stopped signing and why, and when it was let go on and on what grounds.
CREATE TABLE log_halt (
    city_id text NOT NULL REFERENCES book,
    number int NOT NULL CHECK (number > 0),
    what text NOT NULL CHECK (what IN ('halted', 'lifted')),
    why text NOT NULL CHECK (length(why) BETWEEN 1 AND 2000),
    -- The checkpoint of ours that it is about, as others hold it.
    note text CHECK (length(note) <= 100000),
    at timestamptz NOT NULL,
    PRIMARY KEY (city_id, number)
);
CREATE TRIGGER log_halt_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON log_halt
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON log_halt TO timebank_app;
