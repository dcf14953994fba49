-- What happened here and must be told to the others, written in the transaction that did it.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    topic text NOT NULL,
    compacted boolean NOT NULL,
    key text NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL,
    published_at timestamptz
);

CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
-- The newest row of a key of a compacted topic is the state that a broker which lost its log is told again.
CREATE INDEX outbox_state ON outbox (topic, key, id DESC) WHERE compacted;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

CREATE FUNCTION outbox_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY outbox;
    RETURN NULL;
END
$$;

CREATE TRIGGER outbox_wake AFTER INSERT ON outbox
FOR EACH STATEMENT EXECUTE FUNCTION outbox_wake();

-- How far the broker acknowledged each partition. Behind it, the broker lost its log.
-- `log_epoch` counts how often that happened: consumers that see it grow read again from the start.
CREATE TABLE outbox_watermark (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (topic, partition)
);

CREATE TABLE outbox_log (
    topic text PRIMARY KEY,
    log_epoch integer NOT NULL CHECK (log_epoch >= 0),
    lost_at timestamptz NOT NULL
);

-- Which events were handled, by which consumer: an event seen twice does nothing twice.
CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_age ON inbox (processed_at);

-- Messages that a consumer gave up on, kept until somebody looks. `replay_at` asks the worker to try again.
CREATE TABLE dead_letter (
    id uuid PRIMARY KEY,
    consumer text NOT NULL,
    event_id uuid,
    topic text NOT NULL,
    partition integer NOT NULL,
    message_offset bigint NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    error text NOT NULL,
    failed_at timestamptz NOT NULL,
    replay_at timestamptz,
    resolved_at timestamptz
);
-- The same event that fails again, after a replay of the whole topic, is the same dead letter.
CREATE UNIQUE INDEX dead_letter_event ON dead_letter (consumer, event_id);
CREATE INDEX dead_letter_waiting ON dead_letter (consumer, failed_at) WHERE resolved_at IS NULL;

-- Which commands were answered, and how: a command sent twice is done once.
CREATE TABLE idempotency (
    scope text NOT NULL,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    status integer,
    body jsonb,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);
