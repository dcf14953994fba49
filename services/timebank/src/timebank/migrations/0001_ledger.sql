-- The ledger: one book per city, accounts, transfers of postings that sum to zero, in minutes.
-- What must never be false is said here as well as in domain.py.

-- The role that the service works as. It cannot log in: the login that runs `api` and `worker` is a
-- member of it and starts each connection with it (settings.py), so that even a login that owns the
-- database works without the right to change what is posted.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'timebank_app') THEN
        BEGIN
            CREATE ROLE timebank_app NOLOGIN;
        EXCEPTION
            -- Roles belong to the cluster: another of its databases is being migrated too.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role timebank_app is missing, and % may not create roles',
                    current_user
                    USING HINT = format(
                        'as a superuser: CREATE ROLE timebank_app NOLOGIN;'
                        ' GRANT timebank_app TO %I', current_user
                    );
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'timebank_app', 'SET') THEN
        EXECUTE format('GRANT timebank_app TO %I', current_user);
    END IF;
END
$$;

-- The plumbing's tables, which are all there is so far. Those of the ledger come one by one, below.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO timebank_app;
REVOKE INSERT, UPDATE, DELETE ON schema_migration FROM timebank_app;

CREATE TABLE book (
    city_id text PRIMARY KEY CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    status text NOT NULL CHECK (status IN ('active', 'left')),
    -- The version of the city's state that this row knows; 0: a member was heard of first.
    city_version bigint NOT NULL CHECK (city_version >= 0),
    member_floor_minutes bigint NOT NULL DEFAULT -600 CHECK (member_floor_minutes <= 0),
    opened_at timestamptz NOT NULL
);

-- What identity says of a member, as far as the time bank needs it.
CREATE TABLE member (
    member_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    status text NOT NULL CHECK (status IN ('active', 'suspended', 'erased')),
    version bigint NOT NULL CHECK (version > 0)
);

CREATE TABLE standing (
    member_id uuid PRIMARY KEY REFERENCES member,
    city_id text NOT NULL REFERENCES book,
    standing text NOT NULL CHECK (standing IN ('good', 'grace', 'lapsed', 'exempt')),
    version bigint NOT NULL CHECK (version > 0)
);

CREATE TABLE account (
    account_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    kind text NOT NULL CHECK (kind IN (
        'member', 'organisation', 'commons', 'solidarity_fund', 'in_transit', 'clearing'
    )),
    owner_id uuid,
    -- Of in_transit and clearing: the city on the other side.
    peer_city_id text,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    -- The balance never falls below it. NULL: no floor.
    floor_minutes bigint,
    balance_minutes bigint NOT NULL DEFAULT 0,
    -- How many postings the account has had; the balance is that of the posting with this number.
    version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    opened_at timestamptz NOT NULL,
    CHECK ((kind IN ('member', 'organisation')) = (owner_id IS NOT NULL)),
    CHECK ((kind IN ('in_transit', 'clearing')) = (peer_city_id IS NOT NULL)),
    CONSTRAINT account_floor CHECK (balance_minutes >= floor_minutes),
    -- 2^53 - 1: what every JSON reader can hold exactly.
    CONSTRAINT account_range
    CHECK (balance_minutes BETWEEN -9007199254740991 AND 9007199254740991),
    CHECK (version > 0 OR balance_minutes = 0),
    UNIQUE NULLS NOT DISTINCT (city_id, kind, owner_id, peer_city_id),
    -- Lets a posting prove that its account is of the transfer's city.
    UNIQUE (account_id, city_id)
    -- Room in each page, so that a new balance stays there and touches no index.
) WITH (fillfactor = 70);
CREATE INDEX account_owner ON account (owner_id) WHERE owner_id IS NOT NULL;

CREATE TABLE transfer (
    transfer_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    kind text NOT NULL CHECK (kind IN ('transfer', 'reversal')),
    reverses uuid REFERENCES transfer,
    requested_by text NOT NULL CHECK (length(requested_by) BETWEEN 1 AND 200),
    posted_at timestamptz NOT NULL,
    CHECK ((kind = 'reversal') = (reverses IS NOT NULL)),
    UNIQUE (city_id, transfer_id)
);
-- A transfer is taken back once.
CREATE UNIQUE INDEX transfer_reverses ON transfer (reverses) WHERE reverses IS NOT NULL;

CREATE TABLE posting (
    account_id uuid NOT NULL,
    -- The number of this posting among those of its account: 1, 2, 3, … without gaps.
    account_version bigint NOT NULL CHECK (account_version > 0),
    transfer_id uuid NOT NULL,
    city_id text NOT NULL,
    -- Positive: received. Negative: given.
    minutes bigint NOT NULL
    CHECK (minutes <> 0 AND minutes BETWEEN -9007199254740991 AND 9007199254740991),
    -- The account's balance after this posting.
    balance_minutes bigint NOT NULL,
    posted_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, account_version),
    UNIQUE (transfer_id, account_id),
    -- Both lead to the same city: no transfer leaves its book.
    FOREIGN KEY (account_id, city_id) REFERENCES account (account_id, city_id),
    FOREIGN KEY (city_id, transfer_id) REFERENCES transfer (city_id, transfer_id)
);

-- Words may name people, so they stand apart from the ledger and can be erased (NULL).
CREATE TABLE transfer_memo (
    transfer_id uuid PRIMARY KEY REFERENCES transfer,
    memo text CHECK (length(memo) BETWEEN 1 AND 2000)
);

-- Which Idempotency-Key was answered with which transfer. Refusals are not kept: nothing was done.
CREATE TABLE transfer_key (
    requested_by text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    transfer_id uuid NOT NULL REFERENCES transfer,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (requested_by, key)
);

-- ── What is posted stays ────────────────────────────────────────────────────────────────────────
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger only grows: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'post a reversal';
END
$$;

CREATE TRIGGER transfer_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON transfer
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER posting_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON posting
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── Zero-sum, and balances that follow from the postings: checked as the transaction commits ────
CREATE FUNCTION check_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT sum(minutes) FROM posting WHERE transfer_id = NEW.transfer_id)
        IS DISTINCT FROM 0 THEN
        RAISE EXCEPTION 'the postings of transfer % do not sum to zero', NEW.transfer_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_sums_to_zero';
    END IF;
    RETURN NULL;
END
$$;

-- By induction over the account's postings: the balance after one is the sum of all up to it.
CREATE FUNCTION check_posting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before_minutes bigint := 0;
BEGIN
    IF NEW.account_version > 1 THEN
        SELECT balance_minutes INTO before_minutes FROM posting
        WHERE account_id = NEW.account_id AND account_version = NEW.account_version - 1;
    END IF;
    IF NEW.balance_minutes IS DISTINCT FROM before_minutes + NEW.minutes THEN
        RAISE EXCEPTION 'posting % of account % does not continue the one before',
            NEW.account_version, NEW.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_continues';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION check_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_version bigint := 0;
    last_minutes bigint := 0;
    stored account;
BEGIN
    SELECT * INTO stored FROM account WHERE account_id = NEW.account_id;
    SELECT account_version, balance_minutes INTO last_version, last_minutes FROM posting
    WHERE account_id = NEW.account_id ORDER BY account_version DESC LIMIT 1;
    IF stored.version <> coalesce(last_version, 0)
        OR stored.balance_minutes <> coalesce(last_minutes, 0) THEN
        RAISE EXCEPTION 'the balance of account % is not that of its last posting', NEW.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'account_follows_postings';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER transfer_sums_to_zero AFTER INSERT ON transfer
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer();
-- A posting added later to a transfer of before would not pass by the trigger above.
CREATE CONSTRAINT TRIGGER posting_sums_to_zero AFTER INSERT ON posting
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer();
CREATE CONSTRAINT TRIGGER posting_continues AFTER INSERT ON posting
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_posting();
CREATE CONSTRAINT TRIGGER posting_moves_balance AFTER INSERT ON posting
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_account();
CREATE CONSTRAINT TRIGGER account_follows_postings
AFTER INSERT OR UPDATE OF balance_minutes, version ON account
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_account();

-- ── Rights of the service ───────────────────────────────────────────────────────────────────────
GRANT SELECT, INSERT ON transfer, posting TO timebank_app;
GRANT SELECT, INSERT, UPDATE (memo) ON transfer_memo TO timebank_app;
GRANT SELECT, INSERT, DELETE ON transfer_key TO timebank_app;
GRANT SELECT, INSERT ON account TO timebank_app;
GRANT UPDATE (status, floor_minutes, balance_minutes, version) ON account TO timebank_app;
GRANT SELECT, INSERT, UPDATE ON book, member, standing TO timebank_app;
