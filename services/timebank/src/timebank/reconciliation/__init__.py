"""Whether two cities tell one story: their positions differ by what is in flight alone."""
