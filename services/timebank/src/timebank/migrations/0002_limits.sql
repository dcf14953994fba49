-- Ceilings, the soft warning before a floor, and who set which limit when.

-- The balance never rises above it. NULL: no ceiling.
ALTER TABLE account ADD COLUMN ceiling_minutes bigint;
-- Not looked up again: no account has a ceiling yet.
ALTER TABLE account ADD CONSTRAINT account_ceiling
CHECK (balance_minutes <= ceiling_minutes) NOT VALID;

-- How much the giver could still give after this posting, when that was little (domain.py);
-- kept, so that a request sent again gets the same warning.
ALTER TABLE posting ADD COLUMN left_minutes bigint;

CREATE TABLE account_limit (
    account_id uuid NOT NULL REFERENCES account,
    -- 1, 2, 3, … for each account.
    number bigint NOT NULL CHECK (number > 0),
    floor_minutes bigint,
    ceiling_minutes bigint,
    set_by text NOT NULL CHECK (length(set_by) BETWEEN 1 AND 200),
    set_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, number)
);
CREATE TRIGGER account_limit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON account_limit
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON account_limit TO timebank_app;
GRANT UPDATE (ceiling_minutes) ON account TO timebank_app;
