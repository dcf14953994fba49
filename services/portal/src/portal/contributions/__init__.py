"""Hours that people gave: logging them, confirming them, and what to do when two disagree."""
