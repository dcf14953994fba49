-- Cards that are no plastic. A phone signs what it shows, and `public_key` tells it true from false:
-- the uncompressed point of P-256 in base64url. A guest's paper bears a secret, of which the hash is
-- kept; `member_id` is the host. `guest_name` is for those at the door of the places, and goes when
-- the pass is long over.
ALTER TABLE card ADD COLUMN public_key text
    CONSTRAINT card_public_key CHECK (public_key ~ '^[A-Za-z0-9_-]{87}$');
ALTER TABLE card ADD COLUMN valid_from timestamptz;
ALTER TABLE card ADD COLUMN valid_until timestamptz;
ALTER TABLE card ADD COLUMN places uuid[];
ALTER TABLE card ADD COLUMN guest_name text
    CONSTRAINT card_guest_name CHECK (length(guest_name) <= 80);

-- The new one takes all that the old one took.
-- squawk-ignore ban-drop-constraint
ALTER TABLE card DROP CONSTRAINT card_credential_type_check;
ALTER TABLE card ADD CONSTRAINT card_credential_type_check
    CHECK (credential_type IN ('uid', 'ntag424', 'pass', 'guest')) NOT VALID;
ALTER TABLE card ADD CONSTRAINT card_of_phone
    CHECK ((credential_type = 'pass') = (public_key IS NOT NULL)) NOT VALID;
ALTER TABLE card ADD CONSTRAINT card_of_guest CHECK (
    CASE WHEN credential_type = 'guest'
    THEN valid_from IS NOT NULL AND valid_until IS NOT NULL AND guest_name IS NOT NULL
        AND places IS NOT NULL AND valid_until > valid_from
        AND valid_until <= valid_from + interval '336 hours'
        AND cardinality(places) BETWEEN 1 AND 10
    ELSE valid_from IS NULL AND valid_until IS NULL AND guest_name IS NULL AND places IS NULL
    END
) NOT VALID;

-- Guests are few beside cards, and asked for by place. The table is small: a moment's lock.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX card_guests_of_place ON card USING gin (places) WHERE credential_type = 'guest';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX card_guests_to_forget ON card (valid_until)
    WHERE credential_type = 'guest' AND guest_name <> '';
