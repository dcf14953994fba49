-- What came to take a transfer back, also when it was refused.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX clearing_in_back ON clearing_in (city_id, reverses) WHERE reverses IS NOT NULL;

-- Since when a peer was asked and has not answered: not whether anybody asked.
ALTER TABLE reconciliation_pair ADD COLUMN unanswered_since timestamptz;
