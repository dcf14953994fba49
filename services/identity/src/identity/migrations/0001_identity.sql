-- Cities, people, cards, machines. No UID, no password, no secret lies here in clear.
CREATE TABLE city (
    city_id text PRIMARY KEY CHECK (city_id ~ '^[a-z][a-z0-9-]{1,39}$'),
    name text NOT NULL,
    timezone text NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'left')),
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL
);

CREATE TABLE member (
    member_id uuid PRIMARY KEY,
    city_id text REFERENCES city,
    display_name text NOT NULL,
    -- The login. ASCII in lower case, so that no two addresses look alike.
    email text CONSTRAINT member_email_unique UNIQUE CHECK (email ~ '^[\x21-\x40\x5b-\x7e]+$'),
    password_hash text,
    status text NOT NULL CHECK (status IN ('active', 'suspended', 'erased')),
    roles text[] NOT NULL CHECK (
        roles <@ ARRAY['resident', 'connector', 'mediator', 'animator', 'steward', 'operator',
                       'auditor', 'federation_admin']
    ),
    places jsonb NOT NULL CHECK (jsonb_typeof(places) = 'object'),
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    CONSTRAINT member_city_roles CHECK (
        city_id IS NOT NULL
        OR NOT roles && ARRAY['resident', 'connector', 'mediator', 'animator', 'steward', 'operator']
    )
);
CREATE INDEX member_of_city ON member (city_id, member_id);
CREATE INDEX member_federation_admin ON member (member_id) WHERE 'federation_admin' = ANY (roles);

CREATE TABLE organisation (
    organisation_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES city,
    name text NOT NULL,
    kind text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX organisation_of_city ON organisation (city_id, organisation_id);

CREATE TABLE card (
    card_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    credential_type text NOT NULL CHECK (credential_type IN ('uid', 'ntag424', 'pass')),
    credential_hash text NOT NULL CHECK (credential_hash ~ '^[0-9a-f]{64}$'),
    uid_tail text NOT NULL CHECK (uid_tail ~ '^[0-9A-F]{4}$'),
    label text NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'blocked', 'replaced')),
    block_reason text CHECK (block_reason IN ('lost', 'stolen', 'damaged', 'other')),
    replaced_by uuid UNIQUE REFERENCES card DEFERRABLE INITIALLY DEFERRED,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    CHECK ((status = 'blocked') <= (block_reason IS NOT NULL)),
    CHECK ((status = 'replaced') = (replaced_by IS NOT NULL))
);
-- A blocked card still owns its credential: it may be unblocked.
CREATE UNIQUE INDEX card_live_credential ON card (credential_hash) WHERE status <> 'replaced';
CREATE INDEX card_of_member ON card (member_id, card_id);

CREATE TABLE reader (
    reader_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES city,
    key_sha256 text NOT NULL CHECK (key_sha256 ~ '^[0-9a-f]{64}$'),
    generation integer NOT NULL CHECK (generation > 0),
    status text NOT NULL CHECK (status IN ('active', 'revoked')),
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL
);
CREATE INDEX reader_of_city ON reader (city_id, reader_id);

CREATE TABLE client (
    client_id uuid PRIMARY KEY,
    name text NOT NULL,
    city_id text REFERENCES city,
    roles text[] NOT NULL CHECK (
        roles <@ ARRAY['resident', 'connector', 'mediator', 'animator', 'steward', 'operator',
                       'auditor']
    ),
    audiences text[] NOT NULL CHECK (
        cardinality(audiences) > 0
        AND audiences <@ ARRAY['identity', 'timebank', 'access', 'places']
    ),
    secret_sha256 text NOT NULL CHECK (secret_sha256 ~ '^[0-9a-f]{64}$'),
    generation integer NOT NULL CHECK (generation > 0),
    status text NOT NULL CHECK (status IN ('active', 'revoked')),
    created_at timestamptz NOT NULL
);

-- Which city a place lies in, as places says: a steward gives only what is in the own city.
CREATE TABLE known_place (
    place_id uuid PRIMARY KEY,
    city_id text NOT NULL,
    version bigint NOT NULL
);

-- The keys that sign access tokens. A key is published before it signs, and stays published until
-- the last token that it signed has expired.
CREATE TABLE signing_key (
    kid text PRIMARY KEY,
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    private_key_sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    signs_from timestamptz NOT NULL,
    published_until timestamptz
);

-- One login. Its refresh tokens follow each other, each used once.
CREATE TABLE refresh_family (
    family_id uuid PRIMARY KEY,
    member_id uuid NOT NULL REFERENCES member,
    audiences text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_reason text CHECK (revoked_reason IN ('logout', 'reused', 'suspended', 'password')),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
CREATE INDEX refresh_family_of_member ON refresh_family (member_id);
CREATE INDEX refresh_family_age ON refresh_family (expires_at);

CREATE TABLE refresh_token (
    token_sha256 bytea PRIMARY KEY,
    family_id uuid NOT NULL REFERENCES refresh_family ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX refresh_token_of_family ON refresh_token (family_id);

-- Counts of failed logins. The key is an HMAC: neither login nor address is readable here.
CREATE TABLE login_failures (
    key text PRIMARY KEY,
    failures integer NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX login_failures_age ON login_failures (expires_at);
