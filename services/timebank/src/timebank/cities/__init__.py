"""Cities as a whole: their keys, their halts, and moving from one time bank to another."""
