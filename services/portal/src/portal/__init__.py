"""The web pages: for visitors, members and operators. Keeps nothing: every fact is a service's."""

__version__ = "0.1.0"
