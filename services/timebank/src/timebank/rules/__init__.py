"""What each city decides about pledges, grace, rent and trust in new members."""
