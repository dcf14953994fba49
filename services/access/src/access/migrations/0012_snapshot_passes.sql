-- Phones' and guests' passes are few among the cards.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX snapshot_card_passes ON snapshot_card (sequence) WHERE more IS NOT NULL;
