-- Clearing between cities that share nothing but signed messages: each city's key, what two cities
-- agreed, and what is known here of each transfer that left or came.

-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_kind_check;
-- Not looked up again: what stands there is of the kinds of before.
ALTER TABLE transfer ADD CONSTRAINT transfer_kind_check CHECK (
    kind IN (
        'transfer', 'reversal', 'contribution', 'pledge', 'solidarity', 'rent_credit',
        'departure', 'settlement', 'return', 'arrival'
    )
) NOT VALID;

-- The Ed25519 key with which a city of ours signs; the private half is sealed (common.sealing).
CREATE TABLE city_key (
    city_id text PRIMARY KEY REFERENCES book,
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    sealed_key bytea NOT NULL,
    created_at timestamptz NOT NULL
);

-- What cities say their key is. An agreement pins the one that its stewards saw.
CREATE TABLE peer_city (
    city_id text PRIMARY KEY CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    version bigint NOT NULL CHECK (version > 0)
);

CREATE TABLE agreement (
    city_id text NOT NULL REFERENCES book,
    peer_city_id text NOT NULL,
    agreement_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('proposed', 'active', 'suspended', 'ended')),
    proposed_by_us boolean NOT NULL,
    suspended_by_us boolean NOT NULL DEFAULT false,
    suspended_by_peer boolean NOT NULL DEFAULT false,
    limit_out_minutes bigint NOT NULL CHECK (limit_out_minutes BETWEEN 0 AND 9007199254740991),
    limit_in_minutes bigint NOT NULL CHECK (limit_in_minutes BETWEEN 0 AND 9007199254740991),
    soft_percent int NOT NULL CHECK (soft_percent BETWEEN 1 AND 100),
    levy_out_permille int NOT NULL CHECK (levy_out_permille BETWEEN 0 AND 500),
    levy_in_permille int NOT NULL CHECK (levy_in_permille BETWEEN 0 AND 500),
    peer_key bytea NOT NULL CHECK (length(peer_key) = 32),
    version bigint NOT NULL CHECK (version > 0),
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, peer_city_id),
    CHECK (city_id <> peer_city_id),
    CHECK (
        (state = 'suspended') = (suspended_by_us OR suspended_by_peer)
        OR state IN ('proposed', 'ended')
    )
);

-- Every state that an agreement was in, and who brought it there: a member, or the peer.
CREATE TABLE agreement_history (
    city_id text NOT NULL,
    peer_city_id text NOT NULL,
    version bigint NOT NULL,
    change text NOT NULL,
    agreement jsonb NOT NULL,
    changed_by text NOT NULL CHECK (length(changed_by) BETWEEN 1 AND 200),
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, peer_city_id, version)
);
CREATE TRIGGER agreement_history_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON agreement_history
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A transfer as its source keeps it.
CREATE TABLE clearing_out (
    transfer_id uuid NOT NULL,
    city_id text NOT NULL REFERENCES book,
    to_city text NOT NULL,
    minutes bigint NOT NULL CHECK (minutes BETWEEN 1 AND 9007199254740991),
    payee uuid NOT NULL,
    deadline timestamptz NOT NULL,
    reverses uuid,
    payer_account uuid NOT NULL,
    levy_minutes bigint NOT NULL,
    requested_by text NOT NULL CHECK (length(requested_by) BETWEEN 1 AND 200),
    memo text CHECK (length(memo) BETWEEN 1 AND 2000),
    sent_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'sent' CHECK (state IN ('sent', 'settled', 'returned')),
    reason text,
    answered_at timestamptz,
    queries int NOT NULL DEFAULT 0 CHECK (queries >= 0),
    queried_at timestamptz,
    query_at timestamptz NOT NULL,
    departure_id uuid NOT NULL UNIQUE REFERENCES transfer,
    conclusion_id uuid UNIQUE REFERENCES transfer,
    PRIMARY KEY (city_id, transfer_id),
    CHECK (city_id <> to_city),
    CHECK ((state = 'sent') = (answered_at IS NULL)),
    CHECK ((state = 'sent') = (conclusion_id IS NULL)),
    CHECK ((state = 'returned') = (reason IS NOT NULL)),
    FOREIGN KEY (payer_account, city_id) REFERENCES account (account_id, city_id)
);
CREATE INDEX clearing_out_waiting ON clearing_out (query_at) WHERE state = 'sent';
CREATE INDEX clearing_out_of_payer ON clearing_out (payer_account, transfer_id);
CREATE INDEX clearing_out_pair ON clearing_out (city_id, to_city, transfer_id);

-- What the destination decided of a transfer, once.
CREATE TABLE clearing_in (
    transfer_id uuid NOT NULL,
    city_id text NOT NULL REFERENCES book,
    from_city text NOT NULL,
    minutes bigint NOT NULL CHECK (minutes BETWEEN 1 AND 9007199254740991),
    payee uuid NOT NULL,
    deadline timestamptz NOT NULL,
    reverses uuid,
    accepted boolean NOT NULL,
    reason text,
    levy_minutes bigint NOT NULL,
    decided_at timestamptz NOT NULL,
    arrival_id uuid UNIQUE REFERENCES transfer,
    PRIMARY KEY (city_id, transfer_id),
    CHECK (city_id <> from_city),
    CHECK (accepted = (reason IS NULL)),
    CHECK (accepted = (arrival_id IS NOT NULL))
);
CREATE INDEX clearing_in_pair ON clearing_in (city_id, from_city, transfer_id);
CREATE INDEX clearing_in_payee ON clearing_in (payee, transfer_id);
-- What came is taken back once.
CREATE UNIQUE INDEX clearing_in_reverses ON clearing_in (city_id, reverses)
WHERE accepted AND reverses IS NOT NULL;
CREATE TRIGGER clearing_in_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_in
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was answered stays answered; what was asked stays what it was.
CREATE FUNCTION check_clearing_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'sent' AND (NEW.state, NEW.reason, NEW.answered_at, NEW.conclusion_id)
        IS DISTINCT FROM (OLD.state, OLD.reason, OLD.answered_at, OLD.conclusion_id) THEN
        RAISE EXCEPTION 'transfer % was answered: it is %', OLD.transfer_id, OLD.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER clearing_out_answered_once BEFORE UPDATE ON clearing_out
FOR EACH ROW EXECUTE FUNCTION check_clearing_out();
CREATE TRIGGER clearing_out_stays BEFORE DELETE OR TRUNCATE ON clearing_out
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Both cities' stewards agree before a transfer is taken back.
CREATE TABLE clearing_reversal (
    city_id text NOT NULL REFERENCES book,
    transfer_id uuid NOT NULL,
    peer_city_id text NOT NULL,
    agreed_by text CHECK (length(agreed_by) BETWEEN 1 AND 200),
    agreed_at timestamptz,
    peer_agreed_at timestamptz,
    -- In the city that gives back: the transfer that does it, and why it could not be sent.
    reversal_id uuid,
    problem text,
    PRIMARY KEY (city_id, transfer_id)
);

-- The signed messages themselves, as evidence: each one that was sent, and the first of each that
-- came.
CREATE TABLE clearing_message (
    city_id text NOT NULL REFERENCES book,
    message_id uuid NOT NULL,
    peer_city_id text NOT NULL,
    sent boolean NOT NULL,
    kind text NOT NULL,
    transfer_id uuid,
    message jsonb NOT NULL,
    kept_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, message_id)
);
CREATE INDEX clearing_message_of_transfer ON clearing_message (transfer_id, city_id)
WHERE transfer_id IS NOT NULL;
CREATE TRIGGER clearing_message_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_message
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON city_key, agreement_history, clearing_in, clearing_message TO timebank_app;
GRANT SELECT, INSERT, UPDATE ON peer_city, agreement, clearing_reversal TO timebank_app;
GRANT SELECT, INSERT,
UPDATE (memo, state, reason, answered_at, queries, queried_at, query_at, conclusion_id)
ON clearing_out TO timebank_app;
