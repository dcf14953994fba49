"""Standing: whether a member keeps what they pledged, is catching up, or is exempt."""
