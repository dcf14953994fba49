-- The exchange board: offers and needs, and what people agree on over them.
-- Both extensions may be made by a database's owner, and come with PostgreSQL itself.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- The French stemmer without its list of stop words: what is left out is said in board/search.py,
-- where accents and plurals go as well, for the texts and for what is looked for alike.
CREATE TEXT SEARCH DICTIONARY board_stem (TEMPLATE = snowball, LANGUAGE = french);
CREATE TEXT SEARCH CONFIGURATION board (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION board
ALTER MAPPING FOR asciiword, word, numword WITH board_stem;

CREATE TABLE listing (
    listing_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    owner_kind text NOT NULL CHECK (owner_kind IN ('member', 'organisation')),
    owner_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('offer', 'need')),
    what text NOT NULL CHECK (what IN ('service', 'lend', 'surplus')),
    -- Words may name people: NULL once they are erased, and then it is closed for good.
    title text CHECK (length(title) BETWEEN 1 AND 200),
    text text CHECK (length(text) BETWEEN 1 AND 2000),
    category text NOT NULL CHECK (category ~ '^[a-z][a-z0-9-]{1,39}$'),
    skills text [] NOT NULL CHECK (cardinality(skills) <= 10),
    place_id uuid REFERENCES place,
    -- To about a hundred metres: where somebody lives is nobody's business.
    latitude double precision CHECK (
        latitude BETWEEN -90 AND 90
        AND latitude = round(latitude::numeric, 3)::double precision
    ),
    longitude double precision CHECK (
        longitude BETWEEN -180 AND 180
        AND longitude = round(longitude::numeric, 3)::double precision
    ),
    schedule_text text CHECK (length(schedule_text) BETWEEN 1 AND 200),
    -- [[weekday 0..6 from Monday, first minute of the day, last], …]
    schedule_slots jsonb NOT NULL DEFAULT '[]',
    price_minutes bigint NOT NULL CHECK (price_minutes BETWEEN 0 AND 1440),
    deposit_minutes bigint NOT NULL CHECK (deposit_minutes BETWEEN 0 AND 6000),
    -- Of a surplus, how many there are, and how many of them are promised or gone.
    quantity bigint CHECK (quantity BETWEEN 1 AND 1000),
    taken bigint NOT NULL DEFAULT 0,
    available_until date,
    visibility text NOT NULL CHECK (visibility IN ('city', 'federation')),
    status text NOT NULL CHECK (status IN ('open', 'closed')),
    closed_because text CHECK (closed_because IN ('owner', 'steward', 'expired', 'erased')),
    listed_by text NOT NULL CHECK (length(listed_by) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    -- What is looked through: stems with weights (A title, B skills and category, D text), and the
    -- words themselves for those spelled nearly so.
    search tsvector NOT NULL,
    words text NOT NULL,
    CONSTRAINT listing_closed_says_why CHECK ((status = 'closed') = (closed_because IS NOT NULL)),
    CONSTRAINT listing_open_has_words CHECK (status = 'closed' OR title IS NOT NULL),
    CONSTRAINT listing_deposit_of_a_loan CHECK (what = 'lend' OR deposit_minutes = 0),
    CONSTRAINT listing_quantity_of_a_surplus CHECK ((what = 'surplus') = (quantity IS NOT NULL)),
    CONSTRAINT listing_gives_what_it_has CHECK (taken BETWEEN 0 AND coalesce(quantity, 0)),
    CONSTRAINT listing_is_somewhere_or_not CHECK ((latitude IS NULL) = (longitude IS NULL))
);
CREATE INDEX listing_search ON listing USING gin (search) WHERE status = 'open';
CREATE INDEX listing_words ON listing USING gin (words gin_trgm_ops) WHERE status = 'open';
CREATE INDEX listing_skills ON listing USING gin (skills) WHERE status = 'open';
CREATE INDEX listing_of_city ON listing (city_id, listing_id) WHERE status = 'open';
CREATE INDEX listing_of_all ON listing (listing_id) WHERE status = 'open' AND visibility = 'federation';
CREATE INDEX listing_of_category ON listing (category, listing_id) WHERE status = 'open';
CREATE INDEX listing_latitude ON listing (latitude) WHERE status = 'open';
CREATE INDEX listing_owner ON listing (owner_id, listing_id);
CREATE INDEX listing_ends ON listing (available_until) WHERE status = 'open';

-- A hold that belongs to an exchange is ended by the exchange alone.
ALTER TABLE hold ADD COLUMN purpose text;
ALTER TABLE hold ADD CONSTRAINT hold_purpose CHECK (purpose IN ('exchange')) NOT VALID;

CREATE TABLE exchange (
    exchange_id uuid PRIMARY KEY,
    listing_id uuid NOT NULL REFERENCES listing,
    city_id text NOT NULL REFERENCES book,
    -- What the listing said when it was asked for; a change of the listing changes no agreement.
    kind text NOT NULL CHECK (kind IN ('offer', 'need')),
    what text NOT NULL CHECK (what IN ('service', 'lend', 'surplus')),
    category text NOT NULL,
    requester_id uuid NOT NULL,
    requester_city_id text NOT NULL REFERENCES book,
    giver_kind text NOT NULL CHECK (giver_kind IN ('member', 'organisation')),
    giver_id uuid NOT NULL,
    receiver_kind text NOT NULL CHECK (receiver_kind IN ('member', 'organisation')),
    receiver_id uuid NOT NULL,
    minutes bigint NOT NULL CHECK (minutes BETWEEN 0 AND 1440),
    deposit_minutes bigint NOT NULL CHECK (deposit_minutes BETWEEN 0 AND 6000),
    quantity bigint CHECK (quantity BETWEEN 1 AND 1000),
    from_on date,
    until_on date,
    -- Words may name people: NULL once they are erased.
    message text CHECK (length(message) BETWEEN 1 AND 2000),
    claim_note text CHECK (length(claim_note) BETWEEN 1 AND 2000),
    ruling_note text CHECK (length(ruling_note) BETWEEN 1 AND 2000),
    status text NOT NULL CHECK (status IN (
        'requested', 'agreed', 'handed_over', 'claimed',
        'done', 'returned', 'settled', 'declined', 'cancelled', 'expired'
    )),
    price_hold_id uuid UNIQUE REFERENCES hold,
    deposit_hold_id uuid UNIQUE REFERENCES hold,
    claimed_minutes bigint,
    settled_minutes bigint,
    -- What it led to: the giver's contribution, or the transfer of its price.
    contribution_id uuid UNIQUE REFERENCES contribution,
    transfer_id uuid UNIQUE REFERENCES transfer,
    late_told_at timestamptz,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    version bigint NOT NULL CHECK (version > 0),
    CONSTRAINT exchange_between_two CHECK (giver_id <> receiver_id),
    CONSTRAINT exchange_deposit_of_a_loan CHECK (what = 'lend' OR deposit_minutes = 0),
    CONSTRAINT exchange_quantity_of_a_surplus CHECK ((what = 'surplus') = (quantity IS NOT NULL)),
    CONSTRAINT exchange_days_of_a_loan CHECK (
        (what = 'lend') = (from_on IS NOT NULL) AND (what = 'lend') = (until_on IS NOT NULL)
    ),
    CONSTRAINT exchange_days_in_order CHECK (from_on <= until_on),
    CONSTRAINT exchange_crosses_cities_free CHECK (
        requester_city_id = city_id OR (minutes = 0 AND deposit_minutes = 0)
    ),
    CONSTRAINT exchange_steps_of_a_loan CHECK (
        what = 'lend' OR status NOT IN ('handed_over', 'claimed', 'returned', 'settled')
    ),
    CONSTRAINT exchange_loan_is_returned CHECK (what <> 'lend' OR status <> 'done'),
    CONSTRAINT exchange_end_has_a_time CHECK (
        (status IN ('requested', 'agreed', 'handed_over', 'claimed')) = (ended_at IS NULL)
    ),
    CONSTRAINT exchange_holds_are_agreed CHECK (
        status <> 'requested' OR (price_hold_id IS NULL AND deposit_hold_id IS NULL)
    ),
    CONSTRAINT exchange_claim_within_deposit CHECK (claimed_minutes BETWEEN 1 AND deposit_minutes),
    CONSTRAINT exchange_settled_within_claim CHECK (
        settled_minutes BETWEEN 0 AND claimed_minutes
        AND (settled_minutes IS NULL OR claimed_minutes IS NOT NULL)
    ),
    CONSTRAINT exchange_settled_says_how CHECK ((status = 'settled') = (settled_minutes IS NOT NULL)),
    CONSTRAINT exchange_leads_to_one CHECK (contribution_id IS NULL OR transfer_id IS NULL),
    -- One object is in one place: the days of what is agreed do not meet.
    CONSTRAINT exchange_lends_once EXCLUDE USING gist (
        listing_id WITH =, daterange(from_on, until_on, '[]') WITH &&
    ) WHERE (kind = 'offer' AND what = 'lend' AND status IN ('agreed', 'handed_over'))
);
CREATE UNIQUE INDEX exchange_object_is_out ON exchange (listing_id)
WHERE kind = 'offer' AND status = 'handed_over';
CREATE UNIQUE INDEX exchange_asked_once ON exchange (listing_id, requester_id)
WHERE status = 'requested';
CREATE INDEX exchange_of_listing ON exchange (listing_id, exchange_id);
CREATE INDEX exchange_giver ON exchange (giver_id, exchange_id);
CREATE INDEX exchange_receiver ON exchange (receiver_id, exchange_id);
CREATE INDEX exchange_waits ON exchange (created_at) WHERE status = 'requested';
CREATE INDEX exchange_out ON exchange (until_on) WHERE status = 'handed_over';

-- From where to where an exchange goes, and that its end is the end.
CREATE FUNCTION check_exchange_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('requested', 'agreed'), ('requested', 'declined'), ('requested', 'cancelled'),
        ('requested', 'expired'), ('agreed', 'done'), ('agreed', 'cancelled'),
        ('agreed', 'handed_over'), ('handed_over', 'returned'), ('handed_over', 'claimed'),
        ('claimed', 'returned'), ('claimed', 'settled')
    ) THEN
        RAISE EXCEPTION 'exchange % does not go from % to %', OLD.exchange_id, OLD.status,
            NEW.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.contribution_id IS NOT NULL AND NEW.contribution_id IS DISTINCT FROM OLD.contribution_id
        OR OLD.transfer_id IS NOT NULL AND NEW.transfer_id IS DISTINCT FROM OLD.transfer_id THEN
        RAISE EXCEPTION 'exchange % was paid already', OLD.exchange_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER exchange_steps BEFORE UPDATE ON exchange
FOR EACH ROW EXECUTE FUNCTION check_exchange_step();
CREATE TRIGGER exchange_stays BEFORE DELETE OR TRUNCATE ON exchange
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- An exchange that has ended holds nobody's minutes; what a listing has promised is what its
-- exchanges say: checked as the transaction commits.
CREATE FUNCTION check_exchange() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored exchange;
BEGIN
    SELECT * INTO stored FROM exchange WHERE exchange_id = NEW.exchange_id;
    IF stored.ended_at IS NOT NULL AND EXISTS (
        SELECT FROM hold WHERE hold_id IN (stored.price_hold_id, stored.deposit_hold_id)
            AND hold.status = 'open'
    ) THEN
        RAISE EXCEPTION 'exchange % has ended and still holds minutes', stored.exchange_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'exchange_ends_its_holds';
    END IF;
    PERFORM check_taken(stored.listing_id);
    RETURN NULL;
END
$$;
CREATE FUNCTION check_taken(checked uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT taken FROM listing WHERE listing_id = checked) IS DISTINCT FROM (
        SELECT coalesce(sum(quantity), 0) FROM exchange
        WHERE listing_id = checked AND status IN ('agreed', 'done')
    ) THEN
        RAISE EXCEPTION 'listing % has not given what its exchanges say', checked
            USING ERRCODE = 'check_violation', CONSTRAINT = 'listing_taken';
    END IF;
END
$$;
CREATE FUNCTION check_listing_taken() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_taken(NEW.listing_id);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER exchange_is_whole AFTER INSERT OR UPDATE OF status ON exchange
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_exchange();
CREATE CONSTRAINT TRIGGER listing_taken AFTER INSERT OR UPDATE OF taken, quantity ON listing
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_listing_taken();

GRANT SELECT, INSERT, UPDATE ON listing, exchange TO timebank_app;
