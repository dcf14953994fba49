"""The exchange board: offers and needs, found, matched, agreed on and done."""
