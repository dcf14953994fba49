"""What happened that concerns a member, and how they want to hear of it."""
