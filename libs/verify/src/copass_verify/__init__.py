"""What an auditor needs to check a book without trusting who keeps it."""
