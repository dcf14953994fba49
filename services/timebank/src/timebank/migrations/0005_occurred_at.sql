-- When an imported transfer happened where it comes from; it is posted here when it is imported.
ALTER TABLE transfer ADD COLUMN occurred_at timestamptz;
