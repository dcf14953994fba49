"""Contributions: logged by who worked, confirmed by those they worked for, then minutes."""
