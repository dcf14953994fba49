"""What two agree on over a listing, from the request to its end."""
