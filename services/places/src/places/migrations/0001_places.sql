-- The cities and readers that identity told us of, newest version wins.
CREATE TABLE city (
    city_id text PRIMARY KEY,
    version bigint NOT NULL,
    name text NOT NULL,
    timezone text NOT NULL,
    status text NOT NULL
);

CREATE TABLE reader (
    reader_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    city_id text NOT NULL,
    status text NOT NULL
);

CREATE TABLE place (
    place_id uuid PRIMARY KEY,
    version bigint NOT NULL CHECK (version >= 1),
    city_id text,
    status text NOT NULL CHECK (status IN ('candidate', 'in_network', 'suspended', 'closed')),
    status_reason text NOT NULL DEFAULT '',
    name text NOT NULL CHECK (name <> ''),
    profile text NOT NULL CHECK (
        profile IN ('mediation_access', 'work_enterprise', 'creation_projects', 'coliving', 'itinerant')
    ),
    address text NOT NULL,
    postcode text NOT NULL CHECK (postcode ~ '^[0-9]{5}$'),
    commune text NOT NULL,
    insee_code text CHECK (insee_code ~ '^([013-9][0-9]|2[AB1-9])[0-9]{3}$'),
    latitude double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude double precision CHECK (longitude BETWEEN -180 AND 180),
    timezone text NOT NULL,
    opening_hours text,
    capacity integer CHECK (capacity > 0),
    anti_passback text NOT NULL CHECK (anti_passback IN ('off', 'hard')),
    itinerant boolean NOT NULL,
    source text,
    external_id text,
    licence text,
    attribution text,
    -- What the source last said, to tell its changes from those made here.
    imported jsonb,
    -- Name, commune, address and postcode in lower case without accents.
    search text NOT NULL,
    -- Half-open UTC intervals in epoch seconds: sorted and disjoint by the type's own rules.
    open int8multirange NOT NULL,
    computed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((status = 'candidate') = (city_id IS NULL)),
    CHECK ((latitude IS NULL) = (longitude IS NULL)),
    CHECK ((source IS NULL) = (external_id IS NULL)),
    UNIQUE (source, external_id)
);
CREATE INDEX place_city ON place (city_id, place_id);
CREATE INDEX place_latitude ON place (latitude) WHERE latitude IS NOT NULL;
CREATE INDEX place_horizon ON place (expires_at) WHERE status IN ('in_network', 'suspended');

CREATE TABLE closure (
    closure_id uuid PRIMARY KEY,
    place_id uuid NOT NULL REFERENCES place,
    from_date date NOT NULL,
    to_date date NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    CHECK (from_date <= to_date)
);
CREATE INDEX closure_place ON closure (place_id, from_date);

CREATE TABLE door (
    door_id uuid PRIMARY KEY,
    place_id uuid NOT NULL REFERENCES place,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('public', 'private')),
    min_assurance smallint NOT NULL CHECK (min_assurance IN (1, 2)),
    unlock_ms integer NOT NULL CHECK (unlock_ms BETWEEN 500 AND 30000),
    publics text [] NOT NULL CHECK (publics <@ ARRAY['network']),
    opening_hours text,
    open int8multirange NOT NULL,
    -- A private door opens to residents and staff of the place only.
    CHECK (kind = 'public' OR publics = '{}')
);
CREATE INDEX door_place ON door (place_id);

CREATE TABLE door_reader (
    reader_id uuid PRIMARY KEY,
    door_id uuid NOT NULL REFERENCES door
);
CREATE INDEX door_reader_door ON door_reader (door_id);
