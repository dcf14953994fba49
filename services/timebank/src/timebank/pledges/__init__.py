"""Pledges: what members promise to their city each month, and what they have given of it."""
