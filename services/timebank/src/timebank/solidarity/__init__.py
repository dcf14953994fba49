"""The solidarity fund: minutes given to it, and help that it gives, so that nobody is left out."""
