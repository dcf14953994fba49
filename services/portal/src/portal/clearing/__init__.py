"""Minutes between cities: giving to a member of another city, agreements, positions."""
