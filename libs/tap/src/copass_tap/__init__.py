"""Who gets in: the pure decision at the door, and how credentials are named."""
