-- Messages under a key that was not heard of yet: the two topics are read independently. They are
-- heard when the key is.
CREATE TABLE clearing_unheard (
    city_id text NOT NULL REFERENCES book,
    message_id uuid NOT NULL,
    from_city text NOT NULL CHECK (from_city ~ '^[a-z][a-z0-9-]{1,39}$'),
    raw jsonb NOT NULL,
    heard_at timestamptz NOT NULL,
    PRIMARY KEY (city_id, message_id)
);
CREATE INDEX clearing_unheard_from ON clearing_unheard (from_city);
GRANT SELECT, INSERT, DELETE ON clearing_unheard TO timebank_app;
