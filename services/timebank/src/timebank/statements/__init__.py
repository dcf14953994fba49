"""Balances and statements as of any instant, also as CSV and PDF."""
