-- What a hold was when it was placed stays too, whoever asks; only how it ends is written later,
-- once, and its words can be erased. Columns that come later are held as well.
CREATE OR REPLACE FUNCTION check_hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text[] := ARRAY['memo'];
BEGIN
    IF OLD.status = 'open' THEN
        may_change := ARRAY['memo', 'status', 'resolved_at', 'posted_minutes', 'transfer_id'];
    ELSIF NEW.status IS DISTINCT FROM OLD.status THEN
        RAISE EXCEPTION 'hold % has ended: it is %', OLD.hold_id, OLD.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF to_jsonb(NEW) - may_change IS DISTINCT FROM to_jsonb(OLD) - may_change THEN
        RAISE EXCEPTION 'what hold % was stays', OLD.hold_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
