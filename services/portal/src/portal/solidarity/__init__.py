"""Minutes for the common fund, and help from it, of which nobody else learns."""
