-- What a place asks of those who enter, and how its doors hang together.

-- squawk-ignore ban-drop-constraint
ALTER TABLE place DROP CONSTRAINT place_anti_passback_check;
-- Not looked up again: what stands there is of the two kinds of before.
ALTER TABLE place ADD CONSTRAINT place_anti_passback_check CHECK (
    anti_passback IN ('off', 'soft', 'hard', 'timed')
) NOT VALID;

ALTER TABLE place
ADD COLUMN anti_passback_minutes integer CHECK (anti_passback_minutes BETWEEN 1 AND 1440);
ALTER TABLE place ADD COLUMN opens_with text NOT NULL DEFAULT 'anybody' CHECK (
    opens_with IN ('anybody', 'staff_inside', 'staff_today')
);
ALTER TABLE place ADD COLUMN guests text NOT NULL DEFAULT 'hours' CHECK (
    guests IN ('none', 'hours', 'host', 'hours_or_host')
);
ALTER TABLE place
ADD COLUMN zones jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(zones) = 'array');
ALTER TABLE place
ADD COLUMN functions jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(functions) = 'array');
ALTER TABLE place ADD CONSTRAINT place_timed_has_minutes CHECK (
    (anti_passback = 'timed') = (anti_passback_minutes IS NOT NULL)
) NOT VALID;

ALTER TABLE door ADD COLUMN from_zone text CHECK (from_zone ~ '^[a-z][a-z0-9-]{0,39}$');
ALTER TABLE door ADD COLUMN to_zone text CHECK (to_zone ~ '^[a-z][a-z0-9-]{0,39}$');
-- Of the doors of one interlock, one is unlocked at a time.
ALTER TABLE door ADD COLUMN interlock text CHECK (interlock ~ '^[a-z][a-z0-9-]{0,39}$');
-- Outside is where a door leads from, never to: nobody is asked on the way out.
ALTER TABLE door ADD CONSTRAINT door_leads_in CHECK (
    from_zone IS NULL OR (to_zone IS NOT NULL AND from_zone <> to_zone)
) NOT VALID;
