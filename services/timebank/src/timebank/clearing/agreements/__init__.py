"""Agreements between cities: without one, no minutes cross."""
