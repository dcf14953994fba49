"""What identity knows and allows: pure values and functions, no clock, no database, no network."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

CredentialType = Literal["uid", "ntag424"]
# Besides the plastic: a member's phone, and a guest's paper.
CardType = CredentialType | Literal["pass", "guest"]
# What somebody is to a place. A warden is staff who answers for those inside, and may know who they
# are; a keyholder a visitor in whose charge others come in.
Relation = Literal["resident", "staff", "warden", "keyholder"]

CITY_ROLES = frozenset({"resident", "connector", "mediator", "animator", "steward", "operator"})
FEDERATION_ROLES = frozenset({"auditor", "federation_admin"})
# Everybody who is a member has this one; it is never stored or set.
MEMBER_ROLE = "member"
# A machine never administers the federation: its secret lies in a file somewhere.
CLIENT_ROLES = CITY_ROLES | (FEDERATION_ROLES - {"federation_admin"})

AUDIENCES = ("identity", "timebank", "access", "places")

PLACES_PER_MEMBER_MAX = 100
UID_BYTES = (4, 7, 10)
UID_SEPARATORS = ":- "
NTAG_UID_DIGITS = 14
EMAIL_LENGTH_MAX = 254
EMAIL_LOCAL_LENGTH_MAX = 64
EMAIL_LOCAL_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+/=?^_`{|}~-")
DOMAIN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
PASSWORD_LENGTH_MIN = 8
PASSWORD_LENGTH_MAX = 200


class Refusal(StrEnum):
    """Why something is not done. `NOT_FOUND` also hides what the actor may not know of."""

    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    FEDERATION_ROLE_REQUIRED = "federation_role_required"
    FEDERATION_MEMBER_PROTECTED = "federation_member_protected"
    UNKNOWN_ROLE = "unknown_role"
    CITY_REQUIRED = "city_required"
    UNKNOWN_PLACE = "unknown_place"
    TOO_MANY_PLACES = "too_many_places"
    LAST_FEDERATION_ADMIN = "last_federation_admin"
    MEMBER_NOT_ACTIVE = "member_not_active"
    MEMBER_WITHOUT_CITY = "member_without_city"
    MEMBER_ERASED = "member_erased"
    CARD_REPLACED = "card_replaced"
    READER_REVOKED = "reader_revoked"
    CLIENT_REVOKED = "client_revoked"


@dataclass(frozen=True, slots=True)
class City:
    city_id: str
    name: str
    timezone: str
    status: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """A person. `roles` without the implied `member`; `places` maps place ids to a Relation."""

    member_id: UUID
    city_id: str | None
    display_name: str
    email: str | None
    status: str
    roles: frozenset[str]
    places: Mapping[str, str]
    version: int
    created_at: datetime

    @property
    def all_roles(self) -> frozenset[str]:
        return self.roles | {MEMBER_ROLE}


@dataclass(frozen=True, slots=True)
class Organisation:
    organisation_id: UUID
    city_id: str
    name: str
    kind: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Card:
    """A card and its holder's city. `uid_tail`: the last 2 bytes, upper-case hex, for display.

    `public_key` is that of a phone; the four after it those of a guest's paper, whose holder is
    the host. Of both, `uid_tail` is the begin of a hash.
    """

    card_id: UUID
    member_id: UUID
    city_id: str
    credential_type: CardType
    credential_hash: str
    uid_tail: str
    label: str
    status: str
    block_reason: str | None
    replaced_by: UUID | None
    version: int
    created_at: datetime
    public_key: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    places: tuple[UUID, ...] | None = None
    guest_name: str | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    reader_id: UUID
    city_id: str
    key_sha256: str
    generation: int
    status: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Client:
    """A service that asks for tokens in its own name."""

    client_id: UUID
    name: str
    city_id: str | None
    roles: frozenset[str]
    audiences: tuple[str, ...]
    secret_sha256: str
    generation: int
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, as identity itself knows them now, not as their token said some minutes ago."""

    id: UUID
    kind: str
    city_id: str | None
    roles: frozenset[str]

    @property
    def is_federation_admin(self) -> bool:
        return "federation_admin" in self.roles

    def works_in(self, city_id: str | None, *roles: str) -> bool:
        """Whether this city is the actor's own and one of the roles is theirs."""
        return city_id is not None and city_id == self.city_id and not self.roles.isdisjoint(roles)

    def manages(self, city_id: str | None, *roles: str) -> bool:
        return self.is_federation_admin or self.works_in(city_id, *roles)


# Who may see what. The answer to "no" is that it does not exist.


def sees_member(actor: Actor, member: Member) -> bool:
    return actor.id == member.member_id or actor.manages(member.city_id, "steward")


def sees_card(actor: Actor, card: Card) -> bool:
    return actor.id == card.member_id or actor.manages(card.city_id, "steward", "operator")


# Who may do what.


def refuse_management(actor: Actor, city_id: str | None, *roles: str) -> Refusal | None:
    """For making something in a city, which everybody knows of: the answer is plain."""
    return None if actor.manages(city_id, *roles) else Refusal.FORBIDDEN


def refuse_status_change(actor: Actor, member: Member) -> Refusal | None:
    """Suspend or reinstate: stewards in their city, but nobody who serves the federation."""
    if not sees_member(actor, member):
        return Refusal.NOT_FOUND
    if not actor.manages(member.city_id, "steward"):
        return Refusal.FORBIDDEN
    if member.roles & FEDERATION_ROLES and not actor.is_federation_admin:
        return Refusal.FEDERATION_MEMBER_PROTECTED
    if member.status == "erased":
        return Refusal.MEMBER_ERASED
    return None


def refuse_roles(
    actor: Actor,
    member: Member,
    roles: frozenset[str],
    places: Mapping[str, str],
    place_cities: Mapping[str, str],
) -> Refusal | None:
    """Whether the actor may give `member` exactly these roles and places.

    `place_cities` says in which city each place lies, as far as it is known. A steward may only
    name places of the own city: a key to another city's house is not theirs to give. Places that
    the member already has are not asked about again.
    """
    refusal = refuse_status_change(actor, member)
    if refusal:
        return refusal
    if roles - CITY_ROLES - FEDERATION_ROLES:
        return Refusal.UNKNOWN_ROLE
    if roles & FEDERATION_ROLES and not actor.is_federation_admin:
        return Refusal.FEDERATION_ROLE_REQUIRED
    if member.city_id is None and (roles & CITY_ROLES or places):
        return Refusal.CITY_REQUIRED
    if len(places) > PLACES_PER_MEMBER_MAX:
        return Refusal.TOO_MANY_PLACES
    if not actor.is_federation_admin:
        added = [place for place in places if member.places.get(place) != places[place]]
        if any(place_cities.get(place) != member.city_id for place in added):
            return Refusal.UNKNOWN_PLACE
    return None


def refuse_card_issue(actor: Actor, member: Member) -> Refusal | None:
    """A new card for a member. Plain members are told no before anything is looked up."""
    if not actor.manages(member.city_id, "steward", "operator"):
        return Refusal.NOT_FOUND
    if member.city_id is None:
        return Refusal.MEMBER_WITHOUT_CITY
    if member.status != "active":
        return Refusal.MEMBER_NOT_ACTIVE
    return None


def refuse_block(actor: Actor, card: Card) -> Refusal | None:
    if not sees_card(actor, card):
        return Refusal.NOT_FOUND
    if actor.id != card.member_id and not actor.manages(card.city_id, "steward"):
        return Refusal.FORBIDDEN
    return Refusal.CARD_REPLACED if card.status == "replaced" else None


def refuse_unblock(actor: Actor, card: Card) -> Refusal | None:
    """Not the holder alone: a thief who holds the phone could open the doors again."""
    if not sees_card(actor, card):
        return Refusal.NOT_FOUND
    if not actor.manages(card.city_id, "steward"):
        return Refusal.FORBIDDEN
    return Refusal.CARD_REPLACED if card.status == "replaced" else None


def refuse_replace(actor: Actor, card: Card) -> Refusal | None:
    if not sees_card(actor, card):
        return Refusal.NOT_FOUND
    if not actor.manages(card.city_id, "steward", "operator"):
        return Refusal.FORBIDDEN
    return Refusal.CARD_REPLACED if card.status == "replaced" else None


def refuse_client_roles(city_id: str | None, roles: frozenset[str]) -> Refusal | None:
    if roles - CLIENT_ROLES:
        return Refusal.UNKNOWN_ROLE
    if city_id is None and roles & CITY_ROLES:
        return Refusal.CITY_REQUIRED
    return None


class Malformed(ValueError):
    """Input that cannot be meant: the message says why, and never repeats the input."""


def normalise_uid(text: str) -> str:
    """The UID of a card as 8, 14 or 20 upper-case hex digits.

    Accepts plain hex, or pairs parted by one kind of `:`, `-` or space. Raises Malformed for
    everything that could be read in two ways: an odd number of digits, groups of other sizes,
    mixed separators, other alphabets' digits, a UID that is not the card's own.
    """
    used = {character for character in text if character in UID_SEPARATORS}
    if len(used) > 1:
        raise Malformed("the UID mixes separators")
    groups = text.split(used.pop()) if used else [text]
    if len(groups) > 1 and any(len(group) != 2 for group in groups):
        raise Malformed("between separators the UID must have exactly two digits")
    digits = "".join(groups)
    if any(character not in "0123456789abcdefABCDEF" for character in digits):
        raise Malformed("the UID has characters that are not hexadecimal digits")
    if len(digits) % 2:
        raise Malformed("the UID has an odd number of digits")
    if len(digits) // 2 not in UID_BYTES:
        raise Malformed("the UID must have 4, 7 or 10 bytes")
    uid = digits.upper()
    if len(set(uid)) == 1 and uid[0] in "0F":
        raise Malformed("the UID is what a reader shows when it read nothing")
    # ISO/IEC 14443-3: a single-size UID that begins with 08 is drawn anew at each tap (phones do
    # that), and 88 is the cascade tag that announces a longer UID.
    if len(uid) == 8 and uid.startswith("08"):
        raise Malformed("a 4-byte UID that begins with 08 is random at each tap")
    if len(uid) == 8 and uid.startswith("88"):
        raise Malformed("a 4-byte UID that begins with 88 is the first part of a longer one")
    return uid


def normalise_email(text: str) -> str:
    """The login: an e-mail address in lower case, plain ASCII.

    ASCII only, because every look-alike (а Cyrillic, ｅ full width, ﬁ ligature) is outside it; a
    domain with accents is written in its xn-- form. Raises Malformed with the reason.
    """
    if unicodedata.normalize("NFKC", text) != text:
        raise Malformed("the address has characters that look like others: write plain letters")
    if not text.isascii():
        raise Malformed(
            "the address has letters outside a-z, which can look like others;"
            " write the domain in its xn-- form"
        )
    email = text.lower()
    local, at, domain = email.rpartition("@")
    if not at or not local or "@" in local:
        raise Malformed("the address is not of the form name@domain")
    if len(email) > EMAIL_LENGTH_MAX or len(local) > EMAIL_LOCAL_LENGTH_MAX:
        raise Malformed("the address is too long")
    if set(local) - EMAIL_LOCAL_CHARACTERS or any(not part for part in local.split(".")):
        raise Malformed("the part before @ has characters or dots that are not allowed")
    labels = domain.split(".")
    if len(labels) < 2 or any(
        not label
        or len(label) > 63
        or set(label) - DOMAIN_CHARACTERS
        or label.startswith("-")
        or label.endswith("-")
        for label in labels
    ):
        raise Malformed("the domain of the address is malformed")
    return email


def fold_password(text: str) -> str:
    """NFKC (NIST SP 800-63B), so that the same keys pressed on two machines are one password."""
    return unicodedata.normalize("NFKC", text)


def normalise_password(text: str) -> str:
    """A folded password. Raises Malformed when too short or too long, counted in characters."""
    password = fold_password(text)
    if len(password) < PASSWORD_LENGTH_MIN:
        raise Malformed(f"a password has at least {PASSWORD_LENGTH_MIN} characters")
    if len(password) > PASSWORD_LENGTH_MAX:
        raise Malformed(f"a password has at most {PASSWORD_LENGTH_MAX} characters")
    return password


def narrow_audience(asked: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...] | None:
    """The services that a token is for: all allowed by default; None when more is asked for."""
    if not asked:
        return allowed
    if set(asked) - set(allowed):
        return None
    return tuple(name for name in allowed if name in asked)
