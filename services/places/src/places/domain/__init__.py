"""What is true of places, without a database, a clock or a network."""
