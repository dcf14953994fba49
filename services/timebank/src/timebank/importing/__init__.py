"""Transfers of another system, or of a file of ours, taken in by the thousand."""
