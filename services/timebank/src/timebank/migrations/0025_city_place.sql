-- Where a city's book is kept: here; on its way to another time bank; there; or always elsewhere,
-- where rows here only refer to the city.
ALTER TABLE book ADD COLUMN place text NOT NULL DEFAULT 'here';
ALTER TABLE book ADD CONSTRAINT book_place
CHECK (place IN ('here', 'moving', 'moved', 'elsewhere')) NOT VALID;

-- What was done to move a city, and with which package.
CREATE TABLE city_move (
    city_id text NOT NULL REFERENCES book,
    number int NOT NULL CHECK (number > 0),
    step text NOT NULL
    CHECK (step IN ('frozen', 'cancelled', 'exported', 'imported', 'caught_up')),
    package_id uuid,
    -- Of the package's manifest, which names the SHA-256 of every file in it.
    sha256 bytea CHECK (length(sha256) = 32),
    log_size bigint CHECK (log_size >= 0),
    at timestamptz NOT NULL,
    PRIMARY KEY (city_id, number),
    CHECK ((step IN ('exported', 'imported')) = (package_id IS NOT NULL)),
    CHECK ((package_id IS NULL) = (sha256 IS NULL))
);
CREATE TRIGGER city_move_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON city_move
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A book that has moved does not come back by itself: nobody here knows what was added to it.
CREATE FUNCTION check_book_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.place, NEW.place) NOT IN (
        ('here', 'moving'), ('moving', 'here'), ('moving', 'moved'), ('elsewhere', 'here')
    ) OR (OLD.place = 'moving' AND NEW.place = 'here' AND (
        SELECT step FROM city_move WHERE city_id = NEW.city_id ORDER BY number DESC LIMIT 1
    ) <> 'cancelled') THEN
        RAISE EXCEPTION 'the book of % is %, and does not become %', OLD.city_id, OLD.place,
            NEW.place USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER book_moves_on BEFORE UPDATE OF place ON book
FOR EACH ROW WHEN (NEW.place <> OLD.place) EXECUTE FUNCTION check_book_place();
CREATE TRIGGER book_stays BEFORE DELETE OR TRUNCATE ON book
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── Nothing is written into a book that is not here ─────────────────────────────────────────────
-- Whoever writes holds a lock on the table from before this looks until the transaction ends; who
-- moves a city waits, after it has said so, for those locks to be gone.
CREATE FUNCTION refuse_away(city text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_at text;
BEGIN
    SELECT place INTO now_at FROM book WHERE city_id = city AND place <> 'here';
    -- Words are forgotten wherever they are kept.
    IF FOUND AND coalesce(current_setting('timebank.forgets', true), '') <> 'on' THEN
        RAISE EXCEPTION 'the book of % is not written here: it is %', city, now_at
            USING ERRCODE = 'object_not_in_prerequisite_state', CONSTRAINT = 'city_is_here',
            DETAIL = now_at;
    END IF;
END
$$;

CREATE FUNCTION refuse_away_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_away(NEW.city_id);
    RETURN NEW;
END
$$;

CREATE FUNCTION refuse_away_accounts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Nearly always there is no such book, and nothing more to look at.
    IF EXISTS (SELECT FROM book WHERE place <> 'here') THEN
        PERFORM refuse_away(city_id) FROM (SELECT DISTINCT city_id FROM written) AS each;
    END IF;
    RETURN NULL;
END
$$;
-- Every posting and every hold moves an account.
CREATE TRIGGER account_written_here AFTER UPDATE ON account
REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION refuse_away_accounts();
CREATE TRIGGER account_opened_here AFTER INSERT ON account
REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION refuse_away_accounts();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'hold', 'contribution', 'exemption', 'standing', 'pledge', 'pledge_credit', 'rent_credit',
        'solidarity_gift', 'solidarity_request', 'listing', 'exchange', 'city_rules', 'city_key',
        'agreement', 'clearing_out', 'clearing_in', 'clearing_message', 'clearing_reversal',
        'log_head', 'log_checkpoint', 'log_cosignature'
    ] LOOP
        EXECUTE format(
            'CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION refuse_away_row()', name || '_written_here', name
        );
    END LOOP;
END
$$;

CREATE FUNCTION refuse_away_cosigner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_away(NEW.cosigner);
    RETURN NEW;
END
$$;
CREATE TRIGGER log_seen_written_here BEFORE INSERT OR UPDATE ON log_seen
FOR EACH ROW EXECUTE FUNCTION refuse_away_cosigner();

GRANT SELECT, INSERT ON city_move TO timebank_app;
