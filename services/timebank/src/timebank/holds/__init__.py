"""Minutes set aside for somebody: held, then given, released or expired."""
