-- Netting: what cities owe each other in a circle is cleared, agreed by every city in it.

-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_kind_check;
-- Not looked up again: what stands there is of the kinds of before.
ALTER TABLE transfer ADD CONSTRAINT transfer_kind_check CHECK (
    kind IN (
        'transfer', 'reversal', 'contribution', 'pledge', 'solidarity', 'rent_credit',
        'departure', 'settlement', 'return', 'arrival', 'netting'
    )
) NOT VALID;

-- By how much the nettings that this city agreed to will raise and lower the position with the
-- peer: beside the limits that they count in, under the same lock.
ALTER TABLE agreement ADD COLUMN netting_up_minutes bigint NOT NULL DEFAULT 0;
ALTER TABLE agreement ADD COLUMN netting_down_minutes bigint NOT NULL DEFAULT 0;
ALTER TABLE agreement ADD CONSTRAINT agreement_netting CHECK (
    netting_up_minutes >= 0 AND netting_down_minutes >= 0
) NOT VALID;

-- A plan as one of its cities keeps it. The city that decides keeps the decision, all others the
-- one that they heard: the decider's signed message, whoever brought it.
CREATE TABLE netting (
    city_id text NOT NULL REFERENCES book,
    netting_id uuid NOT NULL,
    decider text NOT NULL CHECK (decider ~ '^[a-z][a-z0-9-]{1,39}$'),
    moves jsonb NOT NULL,
    digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    expires_at timestamptz NOT NULL,
    proposed_by text NOT NULL CHECK (length(proposed_by) BETWEEN 1 AND 200),
    proposed_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'proposed'
    CHECK (state IN ('proposed', 'agreed', 'posted', 'refused', 'abandoned', 'expired')),
    answered_by text CHECK (length(answered_by) BETWEEN 1 AND 200),
    answered_at timestamptz,
    asks int NOT NULL DEFAULT 0 CHECK (asks >= 0),
    asked_at timestamptz,
    -- When to say again what was not answered, or to give up waiting; null: nothing waits.
    due_at timestamptz,
    decision jsonb,
    decided_at timestamptz,
    transfer_id uuid UNIQUE REFERENCES transfer,
    PRIMARY KEY (city_id, netting_id),
    CHECK ((state = 'posted') = (transfer_id IS NOT NULL)),
    CHECK (state NOT IN ('posted', 'abandoned') OR decision IS NOT NULL),
    CHECK (state NOT IN ('agreed', 'refused') OR answered_at IS NOT NULL),
    CHECK (state IN ('proposed', 'agreed') OR due_at IS NULL)
);
CREATE INDEX netting_due ON netting (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX netting_of_city ON netting (city_id, netting_id DESC);

-- What is agreed waits for the decision; what was decided stays decided, and the plan what it was.
CREATE FUNCTION check_netting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
        ('proposed', 'agreed'), ('proposed', 'refused'), ('proposed', 'expired'),
        ('proposed', 'abandoned'), ('refused', 'abandoned'),
        ('agreed', 'posted'), ('agreed', 'abandoned')
    ) THEN
        RAISE EXCEPTION 'netting % is %', OLD.netting_id, OLD.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.decision IS NOT NULL AND NEW.decision IS DISTINCT FROM OLD.decision THEN
        RAISE EXCEPTION 'netting % was decided', OLD.netting_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER netting_decided_once BEFORE UPDATE ON netting
FOR EACH ROW EXECUTE FUNCTION check_netting();
CREATE TRIGGER netting_stays BEFORE DELETE OR TRUNCATE ON netting
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the decider heard of the others: their first answer, as it was signed.
CREATE TABLE netting_answer (
    city_id text NOT NULL,
    netting_id uuid NOT NULL,
    from_city text NOT NULL,
    agreed boolean NOT NULL,
    message jsonb NOT NULL,
    heard_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, netting_id, from_city),
    FOREIGN KEY (city_id, netting_id) REFERENCES netting
);
CREATE TRIGGER netting_answer_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON netting_answer
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What two cities last said their position is, also of pairs that none of ours is in: from these,
-- circles are found. `position_minutes` is that of `from_city` with `to_city`.
CREATE TABLE position_said (
    from_city text NOT NULL CHECK (from_city ~ '^[a-z][a-z0-9-]{1,39}$'),
    to_city text NOT NULL CHECK (to_city ~ '^[a-z][a-z0-9-]{1,39}$'),
    version bigint NOT NULL CHECK (version >= 0),
    position_minutes bigint NOT NULL
    CHECK (position_minutes BETWEEN -9007199254740991 AND 9007199254740991),
    heard_at timestamptz NOT NULL,
    PRIMARY KEY (from_city, to_city)
);

GRANT SELECT, INSERT ON netting, netting_answer TO timebank_app;
GRANT UPDATE (state, answered_by, answered_at, asks, asked_at, due_at, decision, decided_at,
transfer_id) ON netting TO timebank_app;
GRANT SELECT, INSERT, UPDATE ON position_said TO timebank_app;
