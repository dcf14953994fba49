-- Holds: minutes set aside for somebody, then given in full or in part, released, or expired.

-- The sum of the account's open holds: what is set aside counts against the floor.
ALTER TABLE account ADD COLUMN held_minutes bigint NOT NULL DEFAULT 0;
ALTER TABLE account ADD CONSTRAINT account_held CHECK (held_minutes >= 0) NOT VALID;
-- The one below is stronger, and takes its place at once.
-- squawk-ignore ban-drop-constraint
ALTER TABLE account DROP CONSTRAINT account_floor;
-- Not looked up again: nothing is held yet, and the floor held without it.
ALTER TABLE account ADD CONSTRAINT account_floor
CHECK (balance_minutes - held_minutes >= floor_minutes) NOT VALID;

CREATE TABLE hold (
    hold_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    from_account uuid NOT NULL,
    to_account uuid NOT NULL,
    minutes bigint NOT NULL CHECK (minutes BETWEEN 1 AND 9007199254740991),
    memo text CHECK (length(memo) BETWEEN 1 AND 2000),
    requested_by text NOT NULL CHECK (length(requested_by) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'posted', 'voided', 'expired')),
    resolved_at timestamptz,
    -- What was given of it, by which transfer.
    posted_minutes bigint,
    transfer_id uuid UNIQUE REFERENCES transfer,
    CHECK (from_account <> to_account),
    CHECK (expires_at > created_at),
    CHECK ((status = 'open') = (resolved_at IS NULL)),
    CHECK ((status = 'posted') = (transfer_id IS NOT NULL)),
    CHECK ((status = 'posted') = (posted_minutes IS NOT NULL)),
    CHECK (posted_minutes BETWEEN 1 AND minutes),
    FOREIGN KEY (from_account, city_id) REFERENCES account (account_id, city_id),
    FOREIGN KEY (to_account, city_id) REFERENCES account (account_id, city_id)
);
CREATE INDEX hold_from ON hold (from_account, hold_id);
CREATE INDEX hold_to ON hold (to_account, hold_id);
CREATE INDEX hold_open ON hold (expires_at) WHERE status = 'open';

-- A hold ends once, and what it was stays; only its words can be erased.
CREATE FUNCTION check_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.status <> 'open' AND NEW.status IS DISTINCT FROM OLD.status THEN
        RAISE EXCEPTION 'hold % has ended: it is %', OLD.hold_id, OLD.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER hold_ends_once BEFORE UPDATE ON hold
FOR EACH ROW EXECUTE FUNCTION check_hold();
CREATE TRIGGER hold_stays BEFORE DELETE OR TRUNCATE ON hold
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What an account holds is the sum of its open holds: checked as the transaction commits.
CREATE FUNCTION check_held(checked uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT held_minutes FROM account WHERE account_id = checked) IS DISTINCT FROM (
        SELECT coalesce(sum(minutes), 0) FROM hold WHERE from_account = checked AND status = 'open'
    ) THEN
        RAISE EXCEPTION 'account % does not hold the sum of its open holds', checked
            USING ERRCODE = 'check_violation', CONSTRAINT = 'account_holds';
    END IF;
END
$$;
CREATE FUNCTION check_hold_held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_held(NEW.from_account);
    RETURN NULL;
END
$$;
CREATE FUNCTION check_account_held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_held(NEW.account_id);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER hold_is_held AFTER INSERT OR UPDATE OF status ON hold
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_hold_held();
CREATE CONSTRAINT TRIGGER account_holds AFTER INSERT OR UPDATE OF held_minutes ON account
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_account_held();

GRANT SELECT, INSERT, UPDATE (status, resolved_at, posted_minutes, transfer_id, memo)
ON hold TO timebank_app;
GRANT UPDATE (held_minutes) ON account TO timebank_app;
