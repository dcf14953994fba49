"""Places of the network: what they are, when they open, which doors and readers they have."""
