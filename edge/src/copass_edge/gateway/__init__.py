"""Readers of other makes, each spoken to in its own words, decided by the access service."""
