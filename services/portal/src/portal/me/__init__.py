"""The member's own account: who finds them, all that is kept of them, and an end to it."""
