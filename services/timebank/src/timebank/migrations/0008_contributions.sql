-- Contributions: work that somebody did, and what others say of it, until it is minutes or is not.

-- What places tells of a place, as far as the time bank needs it: that it is there, and whose.
CREATE TABLE place (
    place_id uuid PRIMARY KEY,
    version bigint NOT NULL CHECK (version > 0),
    city_id text NOT NULL CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    status text NOT NULL CHECK (status IN ('in_network', 'suspended', 'closed'))
);

CREATE TABLE contribution (
    contribution_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    -- Who worked.
    giver_id uuid NOT NULL REFERENCES member,
    -- For whom. An outsider has no account: the commons gives the minutes.
    beneficiary_kind text NOT NULL
    CHECK (beneficiary_kind IN ('member', 'organisation', 'commons', 'outsider')),
    beneficiary_id uuid,
    group_id uuid,
    logged_by text NOT NULL CHECK (length(logged_by) BETWEEN 1 AND 200),
    logged_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN (
        'logged', 'disputed', 'confirmed', 'refused', 'withdrawn', 'reversed'
    )),
    -- Counts the changes of this row, for those who are told of it.
    state_version bigint NOT NULL CHECK (state_version > 0),
    -- The number of the latest of its contribution_version.
    version integer NOT NULL CHECK (version BETWEEN 1 AND 20),
    confirmed_minutes integer CHECK (confirmed_minutes BETWEEN 1 AND 1440),
    -- On whose word, beside the giver's, the minutes were given.
    confirmed_by text CHECK (length(confirmed_by) BETWEEN 1 AND 200),
    decided_at timestamptz,
    transfer_id uuid UNIQUE REFERENCES transfer,
    reversal_id uuid UNIQUE REFERENCES transfer,
    reversed_at timestamptz,
    CHECK ((beneficiary_kind IN ('member', 'organisation')) = (beneficiary_id IS NOT NULL)),
    CONSTRAINT contribution_for_another CHECK (beneficiary_id IS DISTINCT FROM giver_id),
    CONSTRAINT contribution_confirmed_by_another
    CHECK (confirmed_by <> giver_id::text AND confirmed_by <> logged_by),
    CHECK ((status IN ('logged', 'disputed')) = (decided_at IS NULL)),
    CHECK ((status IN ('confirmed', 'reversed')) = (transfer_id IS NOT NULL)),
    CHECK ((transfer_id IS NULL) = (confirmed_minutes IS NULL)),
    CHECK ((transfer_id IS NULL) = (confirmed_by IS NULL)),
    CHECK ((status = 'reversed') = (reversal_id IS NOT NULL)),
    CHECK ((reversal_id IS NULL) = (reversed_at IS NULL))
);
CREATE INDEX contribution_giver ON contribution (giver_id, logged_at, contribution_id);
CREATE INDEX contribution_beneficiary ON contribution (beneficiary_id, logged_at, contribution_id)
WHERE beneficiary_id IS NOT NULL;
CREATE INDEX contribution_city ON contribution (city_id, logged_at, contribution_id);
CREATE INDEX contribution_open ON contribution (city_id, logged_at, contribution_id)
WHERE status IN ('logged', 'disputed');
CREATE INDEX contribution_decided ON contribution (city_id, decided_at)
WHERE status = 'confirmed';
CREATE INDEX contribution_group ON contribution (group_id) WHERE group_id IS NOT NULL;

-- What was said of a contribution, by whom, one after the other: nothing that was said is lost.
CREATE TABLE contribution_version (
    contribution_id uuid NOT NULL REFERENCES contribution,
    version integer NOT NULL CHECK (version BETWEEN 1 AND 20),
    side text NOT NULL CHECK (side IN ('giver', 'beneficiary', 'mediator')),
    -- 0: that there was nothing. The giver does not say that: they withdraw.
    minutes integer NOT NULL CHECK (minutes BETWEEN 0 AND 1440),
    performed_on date NOT NULL,
    activity text NOT NULL CHECK (activity IN (
        'cooking', 'cleaning', 'repair', 'garden', 'care', 'childcare', 'teaching', 'reception',
        'transport', 'animation', 'administration', 'craft', 'other'
    )),
    place_id uuid REFERENCES place,
    -- Words may name people: they can be erased (NULL).
    note text CHECK (length(note) BETWEEN 1 AND 2000),
    written_by text NOT NULL CHECK (length(written_by) BETWEEN 1 AND 200),
    written_at timestamptz NOT NULL,
    PRIMARY KEY (contribution_id, version),
    CHECK (side <> 'giver' OR minutes > 0),
    CHECK (version > 1 OR side = 'giver'),
    -- The day is the city's; one more on each side covers every time zone.
    CONSTRAINT contribution_version_not_ahead
    CHECK (performed_on <= (written_at AT TIME ZONE 'UTC')::date + 1),
    CONSTRAINT contribution_version_not_long_ago
    CHECK (version > 1 OR performed_on >= (written_at AT TIME ZONE 'UTC')::date - 367)
);
CREATE INDEX contribution_version_writer ON contribution_version (written_by, contribution_id);

-- ── What has ended stays ────────────────────────────────────────────────────────────────────────
CREATE FUNCTION check_contribution_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (
        OLD.status = 'logged'
        AND NEW.status IN ('logged', 'disputed', 'confirmed', 'withdrawn')
        OR OLD.status = 'disputed'
        AND NEW.status IN ('disputed', 'confirmed', 'refused', 'withdrawn')
        OR OLD.status = 'confirmed' AND NEW.status = 'reversed'
    ) THEN
        RAISE EXCEPTION 'contribution % is %, and does not become %',
            OLD.contribution_id, OLD.status, NEW.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.status = 'confirmed' AND (
        NEW.version, NEW.confirmed_minutes, NEW.confirmed_by, NEW.decided_at, NEW.transfer_id
    ) IS DISTINCT FROM (
        OLD.version, OLD.confirmed_minutes, OLD.confirmed_by, OLD.decided_at, OLD.transfer_id
    ) THEN
        RAISE EXCEPTION 'what was confirmed of contribution % stays', OLD.contribution_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state_version <> OLD.state_version + 1 THEN
        RAISE EXCEPTION 'contribution % changes one by one', OLD.contribution_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'contribution_state_version';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER contribution_moves_on BEFORE UPDATE ON contribution
FOR EACH ROW EXECUTE FUNCTION check_contribution_change();
CREATE TRIGGER contribution_stays BEFORE DELETE OR TRUNCATE ON contribution
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION check_contribution_version_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.note IS NOT NULL OR to_jsonb(NEW) - 'note' <> to_jsonb(OLD) - 'note' THEN
        RAISE EXCEPTION 'what was said of contribution % stays, but for its words',
            OLD.contribution_id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER contribution_version_stays BEFORE UPDATE ON contribution_version
FOR EACH ROW EXECUTE FUNCTION check_contribution_version_change();
CREATE TRIGGER contribution_version_kept BEFORE DELETE OR TRUNCATE ON contribution_version
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── Versions without gaps, and minutes that were really given: checked at commit ────────────────
CREATE FUNCTION check_contribution() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored contribution;
    last_version integer;
    versions bigint;
BEGIN
    SELECT * INTO stored FROM contribution WHERE contribution_id = NEW.contribution_id;
    SELECT max(version), count(*) INTO last_version, versions FROM contribution_version
    WHERE contribution_id = NEW.contribution_id;
    IF last_version IS DISTINCT FROM stored.version OR versions <> stored.version THEN
        RAISE EXCEPTION 'the versions of contribution % do not follow one another',
            NEW.contribution_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'contribution_follows_versions';
    END IF;
    IF stored.transfer_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM transfer t
        JOIN posting received ON received.transfer_id = t.transfer_id
        AND received.minutes = stored.confirmed_minutes
        JOIN account giver ON giver.account_id = received.account_id
        AND giver.kind = 'member' AND giver.owner_id = stored.giver_id
        JOIN posting given ON given.transfer_id = t.transfer_id
        AND given.minutes = -stored.confirmed_minutes
        JOIN account beneficiary ON beneficiary.account_id = given.account_id
        AND beneficiary.kind = CASE stored.beneficiary_kind
            WHEN 'outsider' THEN 'commons' ELSE stored.beneficiary_kind
        END
        AND beneficiary.owner_id IS NOT DISTINCT FROM stored.beneficiary_id
        WHERE t.transfer_id = stored.transfer_id AND t.kind = 'contribution'
        AND t.city_id = stored.city_id
    ) THEN
        RAISE EXCEPTION 'the transfer of contribution % does not give what was confirmed',
            NEW.contribution_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'contribution_gives_minutes';
    END IF;
    IF stored.reversal_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM transfer
        WHERE transfer_id = stored.reversal_id AND reverses = stored.transfer_id
    ) THEN
        RAISE EXCEPTION 'the reversal of contribution % does not take its minutes back',
            NEW.contribution_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'contribution_takes_back';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER contribution_sound AFTER INSERT OR UPDATE ON contribution
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_contribution();
CREATE CONSTRAINT TRIGGER contribution_version_sound AFTER INSERT ON contribution_version
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_contribution();

-- And no minutes are given for a contribution that is not there, or taken back behind its back.
CREATE FUNCTION check_contribution_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'contribution'
        AND NOT EXISTS (SELECT FROM contribution WHERE transfer_id = NEW.transfer_id)
        OR NEW.kind = 'reversal'
        AND EXISTS (SELECT FROM contribution WHERE transfer_id = NEW.reverses)
        AND NOT EXISTS (SELECT FROM contribution WHERE reversal_id = NEW.transfer_id) THEN
        RAISE EXCEPTION 'transfer % belongs to no contribution', NEW.transfer_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_of_contribution';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER transfer_of_contribution AFTER INSERT ON transfer
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.kind IN ('contribution', 'reversal'))
EXECUTE FUNCTION check_contribution_transfer();

-- ── Rights of the service ───────────────────────────────────────────────────────────────────────
GRANT SELECT, INSERT ON contribution, contribution_version TO timebank_app;
GRANT UPDATE (
    status, state_version, version, confirmed_minutes, confirmed_by, decided_at, transfer_id,
    reversal_id, reversed_at
) ON contribution TO timebank_app;
GRANT UPDATE (note) ON contribution_version TO timebank_app;
GRANT SELECT, INSERT, UPDATE ON place TO timebank_app;
