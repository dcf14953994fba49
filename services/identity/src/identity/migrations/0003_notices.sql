-- What members are told, how they want to be told it, and the messages that leave the house.

CREATE TABLE notification_preference (
    member_id uuid PRIMARY KEY REFERENCES member,
    email text NOT NULL CHECK (email IN ('off', 'daily', 'each')),
    push boolean NOT NULL,
    language text NOT NULL CHECK (language IN ('fr', 'en'))
);

-- A browser that asked for messages. `endpoint` is a capability: whoever knows it may send there.
CREATE TABLE push_subscription (
    subscription_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    endpoint text NOT NULL CHECK (length(endpoint) BETWEEN 1 AND 1000),
    p256dh bytea NOT NULL CHECK (octet_length(p256dh) = 65),
    auth bytea NOT NULL CHECK (octet_length(auth) = 16),
    created_at timestamptz NOT NULL,
    CONSTRAINT push_subscription_endpoint UNIQUE (endpoint)
);
CREATE INDEX push_subscription_of_member ON push_subscription (member_id, created_at);

-- `subject`: ids, numbers and dates. The words are made when somebody reads them.
CREATE TABLE notice (
    notice_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    kind text NOT NULL CHECK (length(kind) BETWEEN 1 AND 100),
    subject jsonb NOT NULL CHECK (jsonb_typeof(subject) = 'object'),
    created_at timestamptz NOT NULL,
    read_at timestamptz,
    -- The e-mail of the day that told of it.
    digest_id uuid
);
CREATE INDEX notice_of_member ON notice (member_id, created_at DESC, notice_id DESC);
CREATE INDEX notice_unread ON notice (member_id, created_at) WHERE read_at IS NULL;
CREATE INDEX notice_age ON notice (created_at);
CREATE INDEX notice_of_digest ON notice (digest_id) WHERE digest_id IS NOT NULL;

-- One message to be sent: about one notice, or about a day's. While it waits, `next_at` says when
-- it is tried; while it is being tried, when another worker may take it for lost.
CREATE TABLE notification_delivery (
    delivery_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    channel text NOT NULL CHECK (channel IN ('email', 'push')),
    notice_id uuid REFERENCES notice ON DELETE CASCADE,
    subscription_id uuid REFERENCES push_subscription ON DELETE CASCADE,
    digest_on date,
    status text NOT NULL
    CHECK (status IN ('waiting', 'sent', 'dropped', 'refused', 'given_up')),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at timestamptz,
    -- A word of ours and a number: never what the other server said, which may repeat an address.
    last_error text CHECK (length(last_error) <= 100),
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK ((channel = 'push') = (subscription_id IS NOT NULL)),
    CHECK (num_nonnulls(notice_id, digest_on) = 1),
    CHECK ((status = 'waiting') = (next_at IS NOT NULL)),
    CHECK ((status = 'waiting') = (ended_at IS NULL)),
    CONSTRAINT notification_delivery_once UNIQUE NULLS NOT DISTINCT (
        notice_id, channel, subscription_id, member_id, digest_on
    )
);
CREATE INDEX notification_delivery_due ON notification_delivery (next_at)
WHERE status = 'waiting';
CREATE INDEX notification_delivery_of_member ON notification_delivery (member_id, created_at);
CREATE INDEX notification_delivery_age ON notification_delivery (ended_at)
WHERE ended_at IS NOT NULL;
CREATE INDEX notification_delivery_subscription ON notification_delivery (subscription_id)
WHERE subscription_id IS NOT NULL;
