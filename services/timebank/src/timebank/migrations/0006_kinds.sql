-- What a transfer is for, and the time zone of a city.

-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_kind_check;
-- Not looked up again: what stands there is of the two kinds of before.
ALTER TABLE transfer ADD CONSTRAINT transfer_kind_check CHECK (
    kind IN ('transfer', 'reversal', 'contribution', 'pledge', 'solidarity', 'rent_credit')
) NOT VALID;

-- Days, months and "not in the future" are those of the city. An unknown one is told with the
-- city's next change.
ALTER TABLE book ADD COLUMN timezone text NOT NULL DEFAULT 'Europe/Paris';
