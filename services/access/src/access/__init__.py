"""The access service: a tap at a door becomes a decision, recorded before it is answered."""
