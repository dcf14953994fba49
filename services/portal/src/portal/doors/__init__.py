"""For operators and stewards: one place by the hour and as it happens, and how its readers are."""
