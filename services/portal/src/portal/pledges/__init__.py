"""What a member promised of each month, how far it is kept, and their standing."""
