-- Where a tap led, and what is to be told of it beside its reason.
ALTER TABLE tap ADD COLUMN zone text;
ALTER TABLE tap ADD COLUMN flags text [] NOT NULL DEFAULT '{}';

-- Who looked at who is inside, and when: only ever added to.
CREATE TABLE evacuation_look (
    look_id uuid PRIMARY KEY,
    place_id uuid NOT NULL,
    city_id text NOT NULL,
    looked_by text NOT NULL,
    looked_at timestamptz NOT NULL,
    people integer NOT NULL CHECK (people >= 0)
);
CREATE INDEX evacuation_look_place ON evacuation_look (place_id, look_id DESC);
CREATE INDEX evacuation_look_viewer ON evacuation_look (looked_by, look_id DESC);

-- Whose double entries were pardoned, and by whom: only ever added to. No member: everybody's.
CREATE TABLE passback_reset (
    reset_id uuid PRIMARY KEY,
    place_id uuid NOT NULL,
    city_id text NOT NULL,
    member_id uuid,
    reason text NOT NULL CHECK (reason <> ''),
    reset_by text NOT NULL,
    reset_at timestamptz NOT NULL
);
CREATE INDEX passback_reset_time ON passback_reset (reset_at);

CREATE FUNCTION only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', tg_table_name USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER evacuation_look_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON evacuation_look
FOR EACH STATEMENT EXECUTE FUNCTION only_added_to();
CREATE TRIGGER passback_reset_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON passback_reset
FOR EACH STATEMENT EXECUTE FUNCTION only_added_to();
