"""The life of the demo network as plain values: pledges, hours worked, offers and needs.

In the cities where somebody can log in; the rest of the network has doors and a time bank, and
nobody who looks. Days are counted back from the day of the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from copass.demo_data import DemoNetwork, Member, demo_id

CITIES = ("bourges", "nantes")
# Who says for all that the commons' work was done, besides the stewards.
ANIMATORS = {"bourges": "demo-resident", "nantes": "nantes-01"}
# The story's own: behind with two months of a small pledge, until 120 minutes are worked.
LATE, LATE_MINUTES_A_MONTH, LATE_MONTHS = "demo-late", 60, 2
# Far enough ahead that nobody's standing lapses while a demo network is looked at for months.
AHEAD = ((240, 40, "garden"), (180, 25, "repair"), (200, 11, "cooking"))
SKILLS = ("cuisine", "jardin", "velo", "couture", "informatique", "accueil", "menage", "lecture")


@dataclass(frozen=True, slots=True)
class Pledge:
    """`months_ago`: 0 is the first day of this month, owed from then on."""

    member: Member
    minutes_per_month: int
    months_ago: int
    skills: tuple[str, ...] = ()

    def starts_on(self, today: date) -> date:
        months = today.year * 12 + today.month - 1 - self.months_ago
        return date(months // 12, months % 12 + 1, 1)


@dataclass(frozen=True, slots=True)
class Work:
    """What somebody did for all (`beneficiary` None) or for a member, and whether it is confirmed;
    logged by the steward, or `own`: by themselves."""

    key: str
    giver: Member
    minutes: int
    days_ago: int
    activity: str
    note: str | None = None
    beneficiary: Member | None = None
    own: bool = False
    confirmed: bool = True

    @property
    def contribution_id(self) -> UUID:
        return demo_id("contribution", self.key)

    def body(self, today: date) -> dict[str, Any]:
        to = {"kind": "commons"}
        if self.beneficiary is not None:
            to = {"kind": "member", "id": str(self.beneficiary.member_id)}
        return {
            "contribution_id": str(self.contribution_id),
            "giver_id": str(self.giver.member_id),
            "beneficiary": to,
            "minutes": self.minutes,
            "performed_on": (today - timedelta(days=self.days_ago)).isoformat(),
            "activity": self.activity,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Listing:
    key: str
    owner: Member
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def listing_id(self) -> UUID:
        return listing_id(self.key)

    def body(self) -> dict[str, Any]:
        return {"listing_id": str(self.listing_id), **self.fields}


@dataclass(frozen=True, slots=True)
class CityLife:
    city_id: str
    animator: Member
    pledges: tuple[Pledge, ...]
    works: tuple[Work, ...]
    listings: tuple[Listing, ...]

    @property
    def size(self) -> int:
        return len(self.pledges) + len(self.works) + len(self.listings)


def listing_id(key: str) -> UUID:
    return demo_id("listing", key)


def demo_life(network: DemoNetwork) -> tuple[CityLife, ...]:
    return tuple(
        CityLife(
            city_id,
            network.member(ANIMATORS[city_id]),
            tuple(pledges(network, city_id)),
            tuple(works(network, city_id)),
            tuple(listings(network, city_id)),
        )
        for city_id in CITIES
    )


def inhabitants(network: DemoNetwork, city_id: str) -> list[Member]:
    """Those of the invented inhabitants who take part: five residents and three others."""
    return [network.member(f"{city_id}-{n:02}") for n in (2, 3, 4, 5, 6, 20, 21, 22)]


def pledges(network: DemoNetwork, city_id: str) -> Iterator[Pledge]:
    for n, member in enumerate(inhabitants(network, city_id)):
        yield Pledge(member, 30 + 15 * (n % 3), 0, (SKILLS[n], SKILLS[(n + 3) % len(SKILLS)]))
    if city_id == "bourges":
        yield Pledge(network.member("demo-traveller"), 60, 1, ("pain", "jardin"))
        yield Pledge(network.member("demo-resident"), 60, 1, ("velo", "animation"))
        yield Pledge(network.member(LATE), LATE_MINUTES_A_MONTH, LATE_MONTHS, ("couture",))


def works(network: DemoNetwork, city_id: str) -> Iterator[Work]:
    for member in inhabitants(network, city_id):
        for n, (minutes, days_ago, activity) in enumerate(AHEAD[:2]):
            yield Work(f"{member.key}/{n}", member, minutes, days_ago, activity)
    if city_id == "bourges":
        ada, remi = network.member("demo-traveller"), network.member("demo-resident")
        for n, (minutes, days_ago, activity) in enumerate(AHEAD):
            yield Work(f"ada/{n}", ada, minutes, days_ago, activity, own=True)
            yield Work(f"remi/{n}", remi, minutes, days_ago + 1, activity, own=True)
        yield Work("ada/bread", ada, 90, 3, "cooking", "Deux fournées pour Rémi", remi, own=True,
                   confirmed=False)  # fmt: skip
        yield Work("remi/bike", remi, 45, 2, "repair", "Le vélo d’Ada", ada, own=True,
                   confirmed=False)  # fmt: skip
        yield Work("ada/garden", ada, 60, 1, "garden", "Le potager", own=True, confirmed=False)
    else:
        operator = network.member(ANIMATORS[city_id])
        yield Work("operator/desk", operator, 120, 2, "reception", "Accueil du samedi", own=True,
                   confirmed=False)  # fmt: skip


def listings(network: DemoNetwork, city_id: str) -> Iterator[Listing]:
    if city_id == "bourges":
        ada, remi = network.member("demo-traveller"), network.member("demo-resident")
        late = network.member(LATE)
        yield offer("bike", remi, "service", "Réparation de vélos", "repair", ["velo"], 30,
                    text="Freins, dérailleur, crevaisons : apportez votre bicyclette.",
                    visibility="federation")  # fmt: skip
        yield offer("drill", remi, "lend", "Perceuse à percussion", "repair", ["bricolage"], 0,
                    text="Avec ses mèches à béton.", deposit_minutes=60)  # fmt: skip
        yield offer("bread", ada, "service", "Pain au levain", "cooking", ["pain"], 30,
                    text="Une leçon : de la farine à la fournée.")  # fmt: skip
        yield offer("compost", ada, "surplus", "Compost mûr", "garden", ["jardin"], 0,
                    text="En seaux de dix litres.", quantity=8)  # fmt: skip
        yield offer("sewing", late, "service", "Ourlets et retouches", "craft", ["couture"], 45)
        yield need("moving", ada, "Porter un canapé au deuxième étage", "transport", [], 60)
        yield need("bike-need", late, "Mon vélo ne freine plus", "repair", ["velo"], 30)
    else:
        steward, operator = network.member("nantes-00"), network.member("nantes-01")
        yield offer("laser", operator, "service", "Initiation à la découpeuse laser", "teaching",
                    ["numerique"], 60, visibility="federation")  # fmt: skip
        yield offer("tent", operator, "lend", "Barnum de trois mètres", "animation", [], 0,
                    deposit_minutes=120, visibility="federation")  # fmt: skip
        yield need("translate", steward, "Relire une lettre en allemand", "administration",
                   ["allemand"], 30)  # fmt: skip


def offer(
    key: str,
    owner: Member,
    what: str,
    title: str,
    category: str,
    skills: list[str],
    price_minutes: int,
    **more: Any,
) -> Listing:
    fields = {
        "kind": "offer",
        "what": what,
        "title": title,
        "category": category,
        "skills": skills,
        "price_minutes": price_minutes,
        **more,
    }
    return Listing(key, owner, fields)


def need(
    key: str, owner: Member, title: str, category: str, skills: list[str], price_minutes: int
) -> Listing:
    listing = offer(key, owner, "service", title, category, skills, price_minutes)
    return Listing(key, owner, listing.fields | {"kind": "need"})
