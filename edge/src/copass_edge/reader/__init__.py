"""The reader program: a credential in, a relay out; asks the access service, or decides alone."""
