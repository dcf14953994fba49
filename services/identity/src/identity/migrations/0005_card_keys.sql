-- Who was shown the keys of which card, and when. Kept as long as the card.
CREATE TABLE card_key_disclosure (
    disclosure_id uuid PRIMARY KEY,
    card_id uuid NOT NULL REFERENCES card,
    shown_to text NOT NULL CHECK (length(shown_to) BETWEEN 1 AND 200),
    shown_at timestamptz NOT NULL
);
CREATE INDEX card_key_disclosure_of_card ON card_key_disclosure (card_id, disclosure_id);
