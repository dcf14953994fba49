-- The same guarantees, looked up once per statement instead of some twelve times per transfer.
--
-- At the end of each statement that adds postings or moves balances, one set-wise query per rule
-- looks at all its rows together. What holds then cannot be undone later: nothing posted is changed
-- or deleted, and whatever else touches the same transfer or account is looked at in its turn. What
-- does not hold yet, such as a transfer whose postings come one statement each, is noted in
-- `unsettled`; a deferred constraint looks at it as the transaction commits, and refuses the commit.

CREATE TABLE unsettled (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer_id uuid,
    account_id uuid,
    CHECK (num_nonnulls(transfer_id, account_id) = 1)
);

-- ── As the transaction commits ──────────────────────────────────────────────────────────────────
-- SECURITY DEFINER, here and below: nobody but these functions has any right to `unsettled`.
CREATE OR REPLACE FUNCTION check_transfer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM unsettled WHERE id = NEW.id;
    IF (SELECT sum(minutes) FROM posting WHERE transfer_id = NEW.transfer_id)
        IS DISTINCT FROM 0 THEN
        RAISE EXCEPTION 'the postings of transfer % do not sum to zero', NEW.transfer_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_sums_to_zero';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION check_account() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    last_version bigint := 0;
    last_minutes bigint := 0;
    stored account;
BEGIN
    DELETE FROM unsettled WHERE id = NEW.id;
    SELECT * INTO stored FROM account WHERE account_id = NEW.account_id;
    SELECT account_version, balance_minutes INTO last_version, last_minutes FROM posting
    WHERE account_id = NEW.account_id ORDER BY account_version DESC LIMIT 1;
    IF stored.version IS DISTINCT FROM coalesce(last_version, 0)
        OR stored.balance_minutes IS DISTINCT FROM coalesce(last_minutes, 0) THEN
        RAISE EXCEPTION 'the balance of account % is not that of its last posting', NEW.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'account_follows_postings';
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER transfer_sums_to_zero ON transfer;
DROP TRIGGER posting_sums_to_zero ON posting;
DROP TRIGGER posting_continues ON posting;
DROP TRIGGER posting_moves_balance ON posting;
DROP TRIGGER account_follows_postings ON account;

CREATE CONSTRAINT TRIGGER transfer_sums_to_zero AFTER INSERT ON unsettled
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.transfer_id IS NOT NULL)
EXECUTE FUNCTION check_transfer();
CREATE CONSTRAINT TRIGGER account_follows_postings AFTER INSERT ON unsettled
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.account_id IS NOT NULL)
EXECUTE FUNCTION check_account();

-- ── At the end of a statement ───────────────────────────────────────────────────────────────────
-- Always by the indexes, one row after the other: a plan made while a table was small is kept by
-- the session, and would read the whole table when it has grown.

CREATE FUNCTION check_added_transfers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    -- Its sum is looked at with the postings; one that has none yet would pass by there.
    INSERT INTO unsettled (transfer_id)
    SELECT added.transfer_id FROM added
    WHERE NOT EXISTS (SELECT FROM posting WHERE posting.transfer_id = added.transfer_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER transfer_has_postings AFTER INSERT ON transfer
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_added_transfers();

CREATE FUNCTION check_added_postings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    wrong record;
BEGIN
    -- A posting, its transfer and its account are of one city: no transfer leaves its book. And by
    -- induction over the account's postings: the balance after one is the sum of all up to it.
    SELECT added.*, added.posted_at < earlier.posted_at AS is_earlier,
        transfer.city_id IS DISTINCT FROM added.city_id
        OR account.city_id IS DISTINCT FROM added.city_id AS is_elsewhere
    INTO wrong
    FROM added
    LEFT JOIN transfer ON transfer.transfer_id = added.transfer_id
    LEFT JOIN account ON account.account_id = added.account_id
    LEFT JOIN posting AS earlier ON earlier.account_id = added.account_id
        AND earlier.account_version = added.account_version - 1
    WHERE transfer.city_id IS DISTINCT FROM added.city_id
        OR account.city_id IS DISTINCT FROM added.city_id
        OR added.balance_minutes - added.minutes IS DISTINCT FROM
        CASE WHEN added.account_version = 1 THEN 0 ELSE earlier.balance_minutes END
        OR added.posted_at < earlier.posted_at
    LIMIT 1;
    IF FOUND AND wrong.is_elsewhere THEN
        RAISE EXCEPTION 'transfer % and account % are not both of city % of their posting',
            wrong.transfer_id, wrong.account_id, wrong.city_id
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'posting_in_city';
    ELSIF FOUND AND wrong.is_earlier THEN
        RAISE EXCEPTION 'posting % of account % is earlier than the one before',
            wrong.account_version, wrong.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_follows';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'posting % of account % does not continue the one before',
            wrong.account_version, wrong.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_continues';
    END IF;

    -- Every statement adds zero to a transfer, or the whole is summed up as the transaction commits.
    INSERT INTO unsettled (transfer_id)
    SELECT transfer_id FROM added GROUP BY transfer_id HAVING sum(minutes) <> 0;

    INSERT INTO unsettled (account_id)
    SELECT last.account_id
    FROM (SELECT account_id, max(account_version) AS version FROM added GROUP BY account_id) AS last
    JOIN account ON account.account_id = last.account_id
    WHERE account.version <> last.version;
    RETURN NULL;
END
$$;
CREATE TRIGGER posting_fits AFTER INSERT ON posting
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_added_postings();

CREATE FUNCTION check_moved_accounts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    INSERT INTO unsettled (account_id)
    SELECT moved.account_id FROM moved
    LEFT JOIN posting AS last ON last.account_id = moved.account_id
        AND last.account_version = moved.version
    LEFT JOIN posting AS later ON later.account_id = moved.account_id
        AND later.account_version = moved.version + 1
    WHERE moved.balance_minutes <> coalesce(last.balance_minutes, 0)
        OR (moved.version > 0 AND last.account_id IS NULL)
        OR later.account_id IS NOT NULL;
    RETURN NULL;
END
$$;
-- With triggers on a whole statement, the two events need one each.
CREATE TRIGGER account_follows_postings AFTER UPDATE ON account
REFERENCING NEW TABLE AS moved FOR EACH STATEMENT EXECUTE FUNCTION check_moved_accounts();
CREATE TRIGGER account_begins_empty AFTER INSERT ON account
REFERENCING NEW TABLE AS moved FOR EACH STATEMENT EXECUTE FUNCTION check_moved_accounts();

-- squawk-ignore ban-drop-function
DROP FUNCTION check_posting();

-- ── What the foreign keys held ──────────────────────────────────────────────────────────────────
-- A posting's own are looked at above, in both ways: it has an account and a transfer of its city
-- when it comes, and neither can go or move afterwards. A transfer has postings, so an account, so
-- a book.
-- squawk-ignore ban-drop-constraint
ALTER TABLE posting DROP CONSTRAINT posting_account_id_city_id_fkey;
-- squawk-ignore ban-drop-constraint
ALTER TABLE posting DROP CONSTRAINT posting_city_id_transfer_id_fkey;
-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_city_id_fkey;
-- Was there for the key above to refer to.
-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_city_id_transfer_id_key;

CREATE TRIGGER account_stays BEFORE DELETE OR TRUNCATE OR UPDATE OF account_id, city_id ON account
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
