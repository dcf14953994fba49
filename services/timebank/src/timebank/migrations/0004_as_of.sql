-- Time never runs backwards along an account, so its balance at an instant is a search over its
-- own postings and needs no index that every posting would pay for.

-- When the last posting was made; NULL before the first.
ALTER TABLE account ADD COLUMN posted_at timestamptz;
UPDATE account SET posted_at = (
    SELECT max(posted_at) FROM posting WHERE posting.account_id = account.account_id
) WHERE version > 0;

CREATE OR REPLACE FUNCTION check_posting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before_minutes bigint := 0;
    before_at timestamptz;
BEGIN
    IF NEW.account_version > 1 THEN
        SELECT balance_minutes, posted_at INTO before_minutes, before_at FROM posting
        WHERE account_id = NEW.account_id AND account_version = NEW.account_version - 1;
    END IF;
    IF NEW.balance_minutes IS DISTINCT FROM before_minutes + NEW.minutes THEN
        RAISE EXCEPTION 'posting % of account % does not continue the one before',
            NEW.account_version, NEW.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_continues';
    END IF;
    IF NEW.posted_at < before_at THEN
        RAISE EXCEPTION 'posting % of account % is earlier than the one before',
            NEW.account_version, NEW.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_follows';
    END IF;
    RETURN NULL;
END
$$;

GRANT UPDATE (posted_at) ON account TO timebank_app;
