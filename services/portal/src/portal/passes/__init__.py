"""The pass on a member's phone, and what they give their guests."""
