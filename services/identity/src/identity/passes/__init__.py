"""Cards that are no plastic: a member's phone, and what a guest carries."""
