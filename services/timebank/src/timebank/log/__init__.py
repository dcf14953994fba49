"""The transparency log of each city's book."""
