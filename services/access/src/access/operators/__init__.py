"""For those who look after places: what happens now, by hour and by reason, and how readers are."""
