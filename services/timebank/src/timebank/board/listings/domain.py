"""The rules of listings. Pure.

A listing belongs to a member, or to an organisation for which a steward of its city acts. Its
terms are those at which somebody asks for it: what was asked for is not changed by a change here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from timebank.domain import Actor, Rejected

Kind = Literal["offer", "need"]
What = Literal["service", "lend", "surplus"]
OwnerKind = Literal["member", "organisation"]
Visibility = Literal["city", "federation"]
ListingStatus = Literal["open", "closed"]
ClosedBecause = Literal["owner", "steward", "expired", "erased"]
Category = Literal[
    "cooking",
    "cleaning",
    "repair",
    "garden",
    "care",
    "childcare",
    "teaching",
    "reception",
    "transport",
    "animation",
    "administration",
    "craft",
    "music",
    "digital",
    "tools",
    "household",
    "furniture",
    "leisure",
    "clothing",
    "books",
    "food",
    "compost",
    "other",
]

# What somebody who looks for a category would write.
CATEGORY_WORDS: Mapping[Category, str] = {
    "cooking": "cuisine repas",
    "cleaning": "ménage nettoyage",
    "repair": "réparation bricolage",
    "garden": "jardin jardinage",
    "care": "aide soin accompagnement",
    "childcare": "garde enfants",
    "teaching": "cours enseignement",
    "reception": "accueil",
    "transport": "transport trajet",
    "animation": "animation atelier",
    "administration": "administration papiers",
    "craft": "artisanat couture",
    "music": "musique",
    "digital": "informatique numérique",
    "tools": "outil outillage",
    "household": "maison électroménager",
    "furniture": "meuble mobilier",
    "leisure": "loisir jeu sport",
    "clothing": "vêtement",
    "books": "livre",
    "food": "nourriture aliment",
    "compost": "compost",
    "other": "",
}

PRICE_MINUTES_MAX = 1440
DEPOSIT_MINUTES_MAX = 6000
QUANTITY_MAX = 1000
SKILLS_MAX = 10
SLOTS_MAX = 21
OPEN_MAX = 200
# About a hundred metres: enough to be near, too little to know a door.
COORDINATE_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """Every week on one day (0 is Monday), from one minute of the day until another."""

    weekday: int
    from_minute: int
    until_minute: int


@dataclass(frozen=True, slots=True)
class Listing:
    """An offer or a need. `price_minutes` are for the whole of it; 0: free.

    `quantity` is of a surplus alone, `taken` what is promised or gone of it. Title and text are
    None once they were erased.
    """

    id: UUID
    city_id: str
    owner_kind: OwnerKind
    owner_id: UUID
    kind: Kind
    what: What
    title: str | None
    text: str | None
    category: Category
    skills: tuple[str, ...]
    place_id: UUID | None
    latitude: float | None
    longitude: float | None
    schedule_text: str | None
    schedule_slots: tuple[Slot, ...]
    price_minutes: int
    deposit_minutes: int
    quantity: int | None
    available_until: date | None
    visibility: Visibility
    listed_by: str
    created_at: datetime
    status: ListingStatus = "open"
    closed_because: ClosedBecause | None = None
    taken: int = 0
    version: int = 1

    @property
    def left(self) -> int | None:
        """How many are left of a surplus; None: it is not counted."""
        return None if self.quantity is None else self.quantity - self.taken


def acts_for_owner(actor: Actor, listing: Listing) -> bool:
    if listing.owner_kind == "member":
        return actor.id == str(listing.owner_id)
    return actor.is_steward_of(listing.city_id)


def may_see(actor: Actor, listing: Listing) -> bool:
    """An open one: its city, or everybody if it is for the federation. A closed one: who acts for
    its owner, and the stewards of its city."""
    if acts_for_owner(actor, listing) or actor.is_steward_of(listing.city_id):
        return True
    return listing.status == "open" and (
        listing.visibility == "federation" or actor.city_id == listing.city_id
    )


def not_theirs(actor: Actor, listing: Listing) -> Rejected:
    """Forbidden to those who see it; absent for all others."""
    if may_see(actor, listing):
        return Rejected("forbidden", "This listing is somebody else's.")
    return Rejected("not_found", "There is no such listing.")


def check_terms(listing: Listing, today: date) -> Rejected | None:
    """Whether the parts of a listing go together. Each refusal names its field."""
    if listing.deposit_minutes and listing.what != "lend":
        return Rejected(
            "wrong_terms", "Only what is lent has a deposit.", field="body.deposit_minutes"
        )
    if (listing.quantity is not None) != (listing.what == "surplus"):
        return Rejected("wrong_terms", "A surplus has a quantity.", field="body.quantity")
    if listing.quantity is not None and listing.quantity < listing.taken:
        return Rejected(
            "already_given", f"{listing.taken} are promised or gone.", field="body.quantity"
        )
    if (listing.latitude is None) != (listing.longitude is None):
        return Rejected(
            "wrong_terms", "A latitude and a longitude go together.", field="body.latitude"
        )
    if listing.available_until is not None and listing.available_until < today:
        return Rejected("wrong_terms", "This day is past.", field="body.available_until")
    return None


def change(
    listing: Listing, changes: Mapping[str, Any], actor: Actor, today: date
) -> Listing | Rejected:
    """The listing with other words or terms, by the names of its attributes."""
    if not acts_for_owner(actor, listing):
        return not_theirs(actor, listing)
    if listing.status != "open":
        return Rejected("listing_closed", "This listing is closed: reopen it first.")
    changed = replace(listing, **changes)
    if changed == listing:
        return listing
    return check_terms(changed, today) or replace(changed, version=listing.version + 1)


def close(listing: Listing, actor: Actor) -> Listing | Rejected:
    """Closed by its owner, or by a steward of its city."""
    own = acts_for_owner(actor, listing)
    if not own and not actor.is_steward_of(listing.city_id):
        return not_theirs(actor, listing)
    if listing.status != "open":
        return Rejected("listing_closed", "This listing is closed already.")
    return closed(listing, "owner" if own else "steward")


def closed(listing: Listing, because: ClosedBecause) -> Listing:
    return replace(listing, status="closed", closed_because=because, version=listing.version + 1)


def reopen(listing: Listing, actor: Actor, today: date) -> Listing | Rejected:
    """Open again by its owner, unless a steward closed it or its words are gone."""
    if not acts_for_owner(actor, listing):
        return not_theirs(actor, listing)
    if listing.status == "open":
        return Rejected("listing_open", "This listing is open.")
    if listing.closed_because == "steward" and not actor.is_steward_of(listing.city_id):
        return Rejected("forbidden", "A steward of the city closed this listing.")
    if listing.title is None:
        return Rejected("listing_closed", "The words of this listing were erased.")
    if listing.available_until is not None and listing.available_until < today:
        return Rejected(
            "wrong_terms", "Its last day is past: list it anew.", field="path.listing_id"
        )
    return replace(listing, status="open", closed_because=None, version=listing.version + 1)
