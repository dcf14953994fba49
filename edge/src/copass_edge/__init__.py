"""What runs beside a door: `reader`, the reader program; `gateway`, for readers of other makes."""
