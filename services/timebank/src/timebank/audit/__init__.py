"""What auditors ask: positions, what is on its way, statements of a pair, what looks odd."""
