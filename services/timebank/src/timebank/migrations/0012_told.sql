-- Accounts and holds are told of, so that whoever follows the events can rebuild the books whole.

-- How often what is told of an account changed: opened, other limits, closed. Not its balance,
-- which follows from the transfers.
ALTER TABLE account ADD COLUMN state_version bigint NOT NULL DEFAULT 1;
ALTER TABLE account ADD CONSTRAINT account_state_version CHECK (state_version > 0) NOT VALID;
GRANT UPDATE (state_version) ON account TO timebank_app;

-- What was there before is told once, as it is.
INSERT INTO outbox (event_id, topic, compacted, key, type, payload, created_at)
SELECT
    gen_random_uuid(),
    'timebank.accounts.v1',
    true,
    account_id::text,
    'timebank.account.changed.v1',
    jsonb_build_object(
        'account_id', account_id,
        'version', state_version,
        'city_id', city_id,
        'kind', kind,
        'owner_id', owner_id,
        'status', status,
        'floor_minutes', floor_minutes,
        'ceiling_minutes', ceiling_minutes
    ),
    now()
FROM account
ORDER BY account_id;
INSERT INTO outbox (event_id, topic, compacted, key, type, payload, created_at)
SELECT
    gen_random_uuid(),
    'timebank.holds.v1',
    true,
    hold_id::text,
    'timebank.hold.changed.v1',
    jsonb_build_object(
        'hold_id', hold_id,
        'version', CASE WHEN status = 'open' THEN 1 ELSE 2 END,
        'city_id', city_id,
        'from_account', from_account,
        'to_account', to_account,
        'minutes', minutes,
        'status', status,
        'created_at', created_at,
        'expires_at', expires_at,
        'resolved_at', resolved_at,
        'posted_minutes', posted_minutes,
        'transfer_id', transfer_id
    ),
    now()
FROM hold
ORDER BY hold_id;
