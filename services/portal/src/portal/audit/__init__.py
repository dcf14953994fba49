"""What moves between cities, for auditors and federation admins; for stewards, of their city."""
