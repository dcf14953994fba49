-- Who may find a member by name, and the words by which they are found.

-- A name without case and accents, œ and its like spelt out, one space between the words:
-- "Zoë Lecœur-Ly" is "zoe lecoeur ly". The collations are PostgreSQL's own: every server folds alike.
CREATE FUNCTION fold_name(name text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN btrim(regexp_replace(
    regexp_replace(
        replace(replace(replace(replace(replace(
            lower(normalize(name, NFKD) COLLATE pg_c_utf8),
            'œ', 'oe'), 'æ', 'ae'), 'ß', 'ss'), 'ø', 'o'), 'ł', 'l'),
        -- Combining marks, and apostrophes: O'Neill is found as oneill.
        '[\u0300-\u036f''’]', '', 'g'
    ),
    '[^[:alnum:]]+', ' ', 'g'
));

ALTER TABLE member ADD COLUMN directory text NOT NULL DEFAULT 'city'
CONSTRAINT member_directory CHECK (directory IN ('nobody', 'city', 'federation'));

-- `name_sort` is the alphabetical order. Both follow display_name, whoever writes it. The table is
-- rewritten and its indexes built under a lock: of the members of a federation, that is a moment.
ALTER TABLE member ADD COLUMN name_sort text COLLATE "C" NOT NULL
-- squawk-ignore adding-field-with-default
GENERATED ALWAYS AS (fold_name(display_name)) STORED;
ALTER TABLE member ADD COLUMN name_search tsvector NOT NULL
-- squawk-ignore adding-field-with-default
GENERATED ALWAYS AS (array_to_tsvector(string_to_array(fold_name(display_name), ' '))) STORED;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX member_name_search ON member USING gin (name_search);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX member_of_city_by_name ON member (city_id, name_sort, member_id);
