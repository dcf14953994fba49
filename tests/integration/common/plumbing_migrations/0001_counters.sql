CREATE TABLE counter (id text PRIMARY KEY, version integer NOT NULL);
-- No key on event_id: applying an event twice must show.
CREATE TABLE followed (event_id uuid NOT NULL, counter text NOT NULL, version integer NOT NULL, seen bigserial);
