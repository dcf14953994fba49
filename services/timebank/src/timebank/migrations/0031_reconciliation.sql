-- Whether two cities tell one story: what of their clearing accounts has no counterpart yet.

-- How far the two books were compared, and what the peer last said.
CREATE TABLE reconciliation_pair (
    city_id text NOT NULL REFERENCES book,
    peer_city_id text NOT NULL,
    our_version bigint NOT NULL DEFAULT 0 CHECK (our_version >= 0),
    our_minutes bigint NOT NULL DEFAULT 0,
    their_version bigint NOT NULL DEFAULT 0 CHECK (their_version >= 0),
    their_minutes bigint NOT NULL DEFAULT 0,
    -- Which of our postings were there when the last answered question was asked.
    asked_version bigint NOT NULL DEFAULT 0 CHECK (asked_version >= 0),
    question_id uuid,
    question_version bigint NOT NULL DEFAULT 0 CHECK (question_version >= 0),
    ask_at timestamptz NOT NULL,
    began_at timestamptz NOT NULL,
    checked_at timestamptz NOT NULL,
    said_at timestamptz,
    -- The signed statement that was heard last.
    said jsonb,
    -- Whether the peer has told everything up to it.
    complete boolean NOT NULL DEFAULT false,
    went_back boolean NOT NULL DEFAULT false,
    PRIMARY KEY (city_id, peer_city_id),
    CHECK (city_id <> peer_city_id),
    CHECK ((said_at IS NULL) = (said IS NULL))
);
CREATE INDEX reconciliation_pair_ask ON reconciliation_pair (ask_at);

CREATE TABLE reconciliation_open (
    city_id text NOT NULL,
    peer_city_id text NOT NULL,
    side text NOT NULL CHECK (side IN ('ours', 'theirs')),
    direction text NOT NULL CHECK (direction IN ('out', 'in', 'netting', 'other')),
    id uuid NOT NULL,
    minutes bigint NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    since timestamptz NOT NULL,
    PRIMARY KEY (city_id, peer_city_id, direction, id, side),
    FOREIGN KEY (city_id, peer_city_id) REFERENCES reconciliation_pair
);
CREATE INDEX reconciliation_open_oldest ON reconciliation_open (city_id, peer_city_id, since);

-- What was wrong between two cities: raised once, closed when it is gone.
CREATE TABLE reconciliation_alarm (
    alarm_id uuid PRIMARY KEY,
    city_id text NOT NULL REFERENCES book,
    peer_city_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN (
        'late', 'unknown_here', 'unknown_there', 'contradicted', 'amount_differs', 'unexplained',
        'position_differs', 'went_back', 'silent'
    )),
    -- The first of the transfers and nettings that it is about, and how many there are.
    ids uuid [] NOT NULL CHECK (cardinality(ids) <= 100),
    count bigint NOT NULL CHECK (count >= 0),
    minutes bigint NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    raised_at timestamptz NOT NULL,
    closed_at timestamptz CHECK (closed_at >= raised_at)
);
CREATE UNIQUE INDEX reconciliation_alarm_open ON reconciliation_alarm (city_id, peer_city_id, kind)
WHERE closed_at IS NULL;
CREATE INDEX reconciliation_alarm_of_city ON reconciliation_alarm (city_id, alarm_id DESC);
CREATE TRIGGER reconciliation_alarm_stays BEFORE DELETE OR TRUNCATE ON reconciliation_alarm
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT, UPDATE ON reconciliation_pair TO timebank_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON reconciliation_open TO timebank_app;
GRANT SELECT, INSERT ON reconciliation_alarm TO timebank_app;
GRANT UPDATE (ids, count, minutes, version, closed_at) ON reconciliation_alarm TO timebank_app;
