"""What a member may have: all that the time bank keeps of them, and an end to their words."""
