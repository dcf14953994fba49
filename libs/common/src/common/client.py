"""The HTTP client of a service that asks another."""

import ssl
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """Which certificates are believed. Reading them takes 20 ms, so a process does it once."""
    return httpx.create_ssl_context()


def make_client() -> httpx.AsyncClient:
    """A client with httpx's own timeouts, to be closed by the caller."""
    return httpx.AsyncClient(verify=trusted())
