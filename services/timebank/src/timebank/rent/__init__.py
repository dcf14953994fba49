"""Rent credit: minutes given to who runs the house, for which rent is taken off."""
