"""Identifiers: UUIDv7 (RFC 9562), so that rows made one after the other lie beside each other."""

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A new UUIDv7 as a standard library UUID."""
    return UUID(bytes=uuid_utils.uuid7().bytes)
