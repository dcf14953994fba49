"""Minutes between cities that share nothing but signed messages."""
