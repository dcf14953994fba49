"""What a reader needs to decide alone: the snapshot of its door, signed, and what changed since."""
