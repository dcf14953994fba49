"""Plumbing shared by the services: it would make sense in any other product."""
