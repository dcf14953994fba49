"""Who is who, for those whom each member lets know."""
