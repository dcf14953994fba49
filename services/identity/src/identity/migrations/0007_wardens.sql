-- Wardens who asked for the names of people inside their place: only ever added to.
CREATE TABLE warden_look (
    look_id uuid PRIMARY KEY,
    place_id uuid NOT NULL,
    looked_by uuid NOT NULL REFERENCES member,
    looked_at timestamptz NOT NULL,
    asked uuid [] NOT NULL CHECK (cardinality(asked) BETWEEN 1 AND 1000)
);
CREATE INDEX warden_look_of_place ON warden_look (place_id, look_id DESC);
CREATE INDEX warden_look_of_asked ON warden_look USING gin (asked);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', tg_table_name USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER warden_look_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON warden_look
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
