"""Cards: who holds which, and what may be done with it."""
