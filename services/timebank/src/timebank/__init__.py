"""The time bank: one book per city, accounts in minutes, transfers that only ever add up."""
