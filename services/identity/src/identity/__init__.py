"""People and communities: cities, members, organisations, roles, logins, access tokens, cards."""
