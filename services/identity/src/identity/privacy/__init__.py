"""What a member may have: all that is kept of them, and an end to it."""
