"""How a credential is named outside the card. Pure."""

import hmac
import re

# Pairs of digits, one after the other or parted by one kind of separator throughout.
UID = re.compile(r"[0-9A-Fa-f]{2}(?:([:\- ]?)[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2})*)?")
UID_DIGITS = (8, 14, 20)


def normalise_uid(text: str) -> str | None:
    """The UID of a card as 8, 14 or 20 upper-case hex digits; None for what is no card's own UID.

    The same rule by which identity issues cards; tests compare the two.
    """
    match = UID.fullmatch(text)
    if match is None:
        return None
    uid = (text.replace(match[1], "") if match[1] else text).upper()
    if len(uid) not in UID_DIGITS or uid in (len(uid) * "0", len(uid) * "F"):
        return None  # the latter is what a reader shows when it read nothing
    # ISO/IEC 14443-3: 4 bytes that begin with 08 are drawn anew at each tap (phones do that), and
    # 88 announces a longer UID, of which these are the first part.
    return None if len(uid) == 8 and uid.startswith(("08", "88")) else uid


def credential_hash(pepper: bytes, kind: str, credential: str) -> str:
    """The name under which a credential is known outside the card: HMAC-SHA256, lower-case hex."""
    return hmac.digest(pepper, f"{kind}:{credential}".encode(), "sha256").hex()
