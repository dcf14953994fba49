"""My time: the balance, what waits for the member, giving time, the statement."""
