-- Who looked at what with the right to see every city: auditors and federation admins themselves.
CREATE TABLE audit_look (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    looked_at timestamptz NOT NULL,
    actor_id text NOT NULL CHECK (length(actor_id) BETWEEN 1 AND 200),
    role text NOT NULL CHECK (role IN ('auditor', 'federation_admin')),
    -- The city that was asked for; null where the question was not of one city.
    city_id text CHECK (length(city_id) BETWEEN 1 AND 40),
    path text NOT NULL CHECK (length(path) BETWEEN 1 AND 500),
    query text NOT NULL CHECK (length(query) <= 1000)
);
CREATE INDEX audit_look_of_city ON audit_look (city_id, number);
CREATE TRIGGER audit_look_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_look
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON audit_look TO timebank_app;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX clearing_out_sent ON clearing_out (city_id, sent_at);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX clearing_in_decided ON clearing_in (city_id, decided_at);
