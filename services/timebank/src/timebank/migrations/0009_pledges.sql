-- Pledges, standing, solidarity and rent credit.
--
-- What is met of a month is not stored: it follows from what is owed and from what was counted,
-- the oldest month first (pledges/domain.py). So it cannot differ from it.

-- ── The rules that each city sets ───────────────────────────────────────────────────────────────
-- Kept with their history; the highest number is in force. Before the first: the defaults of
-- rules/domain.py.
CREATE TABLE city_rules (
    city_id text NOT NULL REFERENCES book,
    number bigint NOT NULL CHECK (number > 0),
    carry_minutes_max bigint NOT NULL CHECK (carry_minutes_max BETWEEN 0 AND 60000),
    grace_days int NOT NULL CHECK (grace_days BETWEEN 0 AND 366),
    -- NULL: the city takes no minutes for rent.
    rent_cents_per_hour bigint CHECK (rent_cents_per_hour BETWEEN 1 AND 1000000),
    rent_minutes_max_per_month bigint NOT NULL
    CHECK (rent_minutes_max_per_month BETWEEN 0 AND 60000),
    member_floor_minutes bigint NOT NULL CHECK (member_floor_minutes BETWEEN -60000 AND 0),
    set_by text NOT NULL CHECK (length(set_by) BETWEEN 1 AND 200),
    set_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, number)
);
CREATE TRIGGER city_rules_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON city_rules
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── Pledges ─────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE pledge (
    pledge_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    city_id text NOT NULL REFERENCES book,
    -- Of the month in which it starts, the days from this one on are owed.
    starts_on date NOT NULL,
    -- The first month that is not owed any more. NULL: it runs.
    ends_before date CHECK (extract(DAY FROM ends_before) = 1),
    skills text [] NOT NULL CHECK (cardinality(skills) <= 30),
    version bigint NOT NULL CHECK (version > 0),
    made_by text NOT NULL CHECK (length(made_by) BETWEEN 1 AND 200),
    made_at timestamptz NOT NULL,
    ended_by text CHECK (length(ended_by) BETWEEN 1 AND 200),
    ended_at timestamptz,
    CHECK ((ends_before IS NULL) = (ended_at IS NULL)),
    CHECK ((ends_before IS NULL) = (ended_by IS NULL))
);
CREATE UNIQUE INDEX pledge_running ON pledge (member_id) WHERE ends_before IS NULL;
CREATE INDEX pledge_member ON pledge (member_id, pledge_id);
CREATE INDEX pledge_city ON pledge (city_id, pledge_id);

-- How much is pledged, from a month on. Of those for the same month, the highest number.
CREATE TABLE pledge_term (
    pledge_id uuid NOT NULL REFERENCES pledge,
    number bigint NOT NULL CHECK (number > 0),
    from_month date NOT NULL CHECK (extract(DAY FROM from_month) = 1),
    minutes_per_month bigint NOT NULL CHECK (minutes_per_month BETWEEN 0 AND 6000),
    set_by text NOT NULL CHECK (length(set_by) BETWEEN 1 AND 200),
    set_at timestamptz NOT NULL,
    PRIMARY KEY (pledge_id, number)
);
CREATE TRIGGER pledge_term_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON pledge_term
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Minutes that count towards what a member pledged to a city, and the transfer that gave them.
CREATE TABLE pledge_credit (
    -- The contribution, or the request for help, that it came from: each counts once. Both ids
    -- may be made by clients, so one of the one kind may meet one of the other.
    source text NOT NULL CHECK (source IN ('contribution', 'help')),
    credit_id uuid NOT NULL,
    member_id uuid NOT NULL REFERENCES member,
    city_id text NOT NULL REFERENCES book,
    -- The month in which it was worked.
    month date NOT NULL CHECK (extract(DAY FROM month) = 1),
    minutes bigint NOT NULL CHECK (minutes > 0),
    transfer_id uuid NOT NULL UNIQUE REFERENCES transfer,
    counted_at timestamptz NOT NULL,
    -- The transfer that gave the minutes back.
    undone_by uuid UNIQUE REFERENCES transfer,
    undone_at timestamptz,
    PRIMARY KEY (source, credit_id),
    CHECK ((undone_by IS NULL) = (undone_at IS NULL))
);
CREATE INDEX pledge_credit_member ON pledge_credit (member_id, city_id, month);

-- What counts is what the commons received, no more and no less; undone is given back whole, once.
CREATE FUNCTION check_pledge_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM posting p JOIN account a USING (account_id)
        WHERE p.transfer_id = NEW.transfer_id AND a.kind = 'commons' AND a.city_id = NEW.city_id
            AND p.minutes = NEW.minutes
    ) THEN
        RAISE EXCEPTION 'credit % is not what the commons received', NEW.credit_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pledge_credit_given';
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.undone_by IS NOT NULL
        AND NEW.undone_by IS DISTINCT FROM OLD.undone_by THEN
        RAISE EXCEPTION 'credit % is undone already', NEW.credit_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.undone_by IS NOT NULL AND NOT EXISTS (
        SELECT FROM transfer WHERE transfer_id = NEW.undone_by AND reverses = NEW.transfer_id
    ) THEN
        RAISE EXCEPTION 'credit % was not given back', NEW.credit_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pledge_credit_given_back';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER pledge_credit_given AFTER INSERT OR UPDATE ON pledge_credit
FOR EACH ROW EXECUTE FUNCTION check_pledge_credit();
CREATE TRIGGER pledge_credit_stays BEFORE DELETE OR TRUNCATE ON pledge_credit
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── Exemptions ──────────────────────────────────────────────────────────────────────────────────
CREATE TABLE exemption (
    exemption_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    -- The city that granted it, whose stewards know why. It follows a member who moves.
    city_id text NOT NULL REFERENCES book,
    from_on date NOT NULL,
    -- The last day. NULL: until somebody ends it.
    until date CHECK (until >= from_on),
    granted_by text NOT NULL CHECK (length(granted_by) BETWEEN 1 AND 200),
    granted_at timestamptz NOT NULL,
    -- The first day on which it is no more.
    ended_on date CHECK (ended_on >= from_on),
    ended_by text CHECK (length(ended_by) BETWEEN 1 AND 200),
    ended_at timestamptz,
    CHECK ((ended_on IS NULL) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX exemption_standing ON exemption (member_id) WHERE ended_on IS NULL;
CREATE INDEX exemption_member ON exemption (member_id);

-- Why: often a matter of health. Apart, so that it can be read by few and erased.
CREATE TABLE exemption_reason (
    exemption_id uuid PRIMARY KEY REFERENCES exemption,
    reason text CHECK (length(reason) BETWEEN 1 AND 2000)
);

-- ── Standing ────────────────────────────────────────────────────────────────────────────────────
-- Why a standing became what it is: the month that was short, or the exemption; never its reason.
CREATE TABLE standing_history (
    member_id uuid NOT NULL REFERENCES member,
    version bigint NOT NULL CHECK (version > 0),
    city_id text NOT NULL REFERENCES book,
    standing text NOT NULL CHECK (standing IN ('good', 'grace', 'lapsed', 'exempt')),
    cause text NOT NULL CHECK (cause IN ('joined', 'moved', 'pledge', 'exemption')),
    month date,
    exemption_id uuid REFERENCES exemption,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (member_id, version)
);
CREATE TRIGGER standing_history_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE
ON standing_history FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- When the mere passing of time may change a standing: the worker looks then.
CREATE TABLE standing_due (
    member_id uuid PRIMARY KEY REFERENCES member,
    due_at timestamptz NOT NULL
);
CREATE INDEX standing_due_at ON standing_due (due_at);

-- ── Solidarity ──────────────────────────────────────────────────────────────────────────────────
CREATE TABLE solidarity_gift (
    gift_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    city_id text NOT NULL REFERENCES book,
    minutes bigint NOT NULL CHECK (minutes > 0),
    -- Shown to nobody but the giver.
    anonymous boolean NOT NULL,
    -- Written after this row, which is what finds that its id is taken.
    transfer_id uuid NOT NULL UNIQUE REFERENCES transfer DEFERRABLE INITIALLY DEFERRED,
    given_at timestamptz NOT NULL
);
CREATE INDEX solidarity_gift_city ON solidarity_gift (city_id, gift_id);

CREATE TABLE solidarity_request (
    request_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    city_id text NOT NULL REFERENCES book,
    minutes bigint NOT NULL CHECK (minutes > 0),
    purpose text NOT NULL CHECK (purpose IN ('balance', 'pledge')),
    status text NOT NULL DEFAULT 'asked' CHECK (
        status IN ('asked', 'granted', 'declined', 'withdrawn')
    ),
    asked_at timestamptz NOT NULL,
    decided_by text CHECK (length(decided_by) BETWEEN 1 AND 200),
    decided_at timestamptz,
    granted_minutes bigint CHECK (granted_minutes BETWEEN 1 AND minutes),
    transfer_id uuid UNIQUE REFERENCES transfer,
    CHECK ((status = 'asked') = (decided_at IS NULL)),
    CHECK ((status = 'granted') = (granted_minutes IS NOT NULL)),
    CHECK ((status = 'granted') = (transfer_id IS NOT NULL)),
    CHECK (decided_by <> member_id::text OR status = 'withdrawn')
);
CREATE UNIQUE INDEX solidarity_asked ON solidarity_request (member_id, purpose)
WHERE status = 'asked';
CREATE INDEX solidarity_request_member ON solidarity_request (member_id, request_id);
CREATE INDEX solidarity_request_city ON solidarity_request (city_id, request_id);

CREATE TABLE solidarity_reason (
    request_id uuid PRIMARY KEY REFERENCES solidarity_request,
    reason text CHECK (length(reason) BETWEEN 1 AND 2000)
);

-- ── Rent credit ─────────────────────────────────────────────────────────────────────────────────
CREATE TABLE rent_credit (
    rent_credit_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    organisation_id uuid NOT NULL,
    city_id text NOT NULL REFERENCES book,
    -- The month, in the city, to which it belongs.
    month date NOT NULL CHECK (extract(DAY FROM month) = 1),
    minutes bigint NOT NULL CHECK (minutes BETWEEN 1 AND 60000),
    -- The city's rate of that day, and what it makes.
    cents_per_hour bigint NOT NULL CHECK (cents_per_hour BETWEEN 1 AND 1000000),
    credit_cents bigint NOT NULL,
    -- Written after this row, which is what finds that its id is taken.
    transfer_id uuid NOT NULL UNIQUE REFERENCES transfer DEFERRABLE INITIALLY DEFERRED,
    made_at timestamptz NOT NULL,
    reversed_by uuid UNIQUE REFERENCES transfer,
    reversed_at timestamptz,
    CHECK (credit_cents = minutes * cents_per_hour / 60),
    CHECK ((reversed_by IS NULL) = (reversed_at IS NULL))
);
CREATE INDEX rent_credit_member ON rent_credit (member_id, rent_credit_id);
CREATE INDEX rent_credit_organisation ON rent_credit (organisation_id, month, rent_credit_id);

-- ── Rights of the service ───────────────────────────────────────────────────────────────────────
GRANT SELECT, INSERT ON city_rules, pledge_term, standing_history, solidarity_gift TO timebank_app;
GRANT SELECT, INSERT, UPDATE (skills, ends_before, version, ended_by, ended_at)
ON pledge TO timebank_app;
GRANT SELECT, INSERT, UPDATE (undone_by, undone_at) ON pledge_credit TO timebank_app;
GRANT SELECT, INSERT, UPDATE (ended_on, ended_by, ended_at) ON exemption TO timebank_app;
GRANT SELECT, INSERT, UPDATE (reason) ON exemption_reason, solidarity_reason TO timebank_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON standing_due TO timebank_app;
GRANT SELECT, INSERT, UPDATE (status, decided_by, decided_at, granted_minutes, transfer_id)
ON solidarity_request TO timebank_app;
GRANT SELECT, INSERT, UPDATE (reversed_by, reversed_at) ON rent_credit TO timebank_app;
