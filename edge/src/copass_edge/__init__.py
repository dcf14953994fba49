"""What runs beside a door: `reader`, the reader program, and `gateway`, for readers of other makes."""
