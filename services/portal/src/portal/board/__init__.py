"""The exchange board: what people offer and need, and what two of them agree on."""
