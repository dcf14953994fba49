"""The demo network as plain values: what exists, under which ids. Pure; nothing is sent from here.

Ids are UUIDv5 of a name, so that every run of the seed asks for the same things and a half-finished
run is taken up where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

NAMESPACE = uuid5(NAMESPACE_URL, "https://copass.example/demo")
VERSION = 1  # of the ids: raise it only when nothing of before may stay
LIFE = 1  # raise it when more belongs to the demo network: the next `make up` seeds what is missing
MEMBERS_PER_CITY = 30
PASSWORD = "copass-demo-2026"  # noqa: S105 - public on purpose: it opens invented accounts only
OPERATOR_CITY = "nantes"  # where an operator can log in; a steward can in every city
ADMIN_EMAIL = "admin@copass.example"

CardState = Literal["active", "blocked", "replaced"]

FIRST_NAMES = (
    "Alba", "Basile", "Camille", "Darius", "Élise", "Farid", "Gaëlle", "Hugo", "Inès", "Jonas",
    "Khadija", "Louise", "Malo", "Nour", "Oriane", "Paul", "Quentin", "Rosa", "Samir", "Talia",
    "Ulysse", "Violette", "Wassim", "Xénia", "Yann", "Zoé",
)  # fmt: skip
SURNAMES = (
    "Fictif", "Exemple", "Imaginaire", "Inventée", "Chimère", "Mirage", "Modèle", "Personne",
    "Fabulette", "Songe",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class City:
    city_id: str
    name: str
    timezone: str


@dataclass(frozen=True, slots=True)
class Door:
    door_id: UUID
    name: str
    kind: Literal["public", "private"]
    reader_id: UUID


@dataclass(frozen=True, slots=True)
class Place:
    key: str
    place_id: UUID
    city_id: str
    doors: tuple[Door, ...]
    fields: dict[str, Any]  # of the request to places: name, address, opening_hours, …

    @property
    def name(self) -> str:
        return str(self.fields["name"])

    @property
    def always_open(self) -> bool:
        return bool(self.fields["opening_hours"] == "24/7")


@dataclass(frozen=True, slots=True)
class Card:
    card_id: UUID
    uid: str  # 7 bytes, upper-case hex
    member_id: UUID
    state: CardState = "active"
    replaced_by: Card | None = None


@dataclass(frozen=True, slots=True)
class Member:
    key: str
    member_id: UUID
    city_id: str
    name: str
    email: str | None = None  # only those who log in have one
    roles: tuple[str, ...] = ()  # besides `member`, which everybody is
    places: dict[str, str] = field(default_factory=dict)  # place id → resident or staff


@dataclass(frozen=True, slots=True)
class DemoNetwork:
    cities: tuple[City, ...]
    places: tuple[Place, ...]
    members: tuple[Member, ...]
    cards: tuple[Card, ...]
    fingerprint: str

    def place(self, key: str) -> Place:
        return next(place for place in self.places if place.key == key)

    def member(self, key: str) -> Member:
        return next(member for member in self.members if member.key == key)

    def card_of(self, key: str) -> Card:
        member_id = self.member(key).member_id
        return next(card for card in self.cards if card.member_id == member_id)

    def doors(self) -> Iterator[tuple[Place, Door]]:
        for place in self.places:
            for door in place.doors:
                yield place, door


def demo_id(kind: str, key: str) -> UUID:
    return uuid5(NAMESPACE, f"{VERSION}/{kind}/{key}")


def demo_uid(key: str) -> str:
    """A 7-byte UID. Real ones of NXP begin with 04; a demo card must never meet a real one: 00."""
    digest = hashlib.sha256(f"{VERSION}/uid/{key}".encode()).hexdigest()
    return "00" + digest[:12].upper()


@cache
def demo_network() -> DemoNetwork:
    raw = Path(__file__).with_name("data").joinpath("demo_places.json").read_bytes()
    return build_network(json.loads(raw), fingerprint=fingerprint(raw))


def fingerprint(raw: bytes) -> str:
    """Changes when the places file or this program's idea of the network changes."""
    numbers = b"%d/%d/%d/" % (VERSION, LIFE, MEMBERS_PER_CITY)
    return hashlib.sha256(numbers + raw).hexdigest()[:16]


def build_network(data: dict[str, Any], *, fingerprint: str) -> DemoNetwork:
    cities = tuple(City(**city) for city in data["cities"])
    places = tuple(build_place(place) for place in data["places"])
    people = [one for city in cities for one in citizens(city, places)] + list(personas())
    return DemoNetwork(cities, places, tuple(people), tuple(cards_of(people)), fingerprint)


def build_place(raw: dict[str, Any]) -> Place:
    key = raw["key"]
    doors = tuple(
        Door(
            demo_id("door", f"{key}/{door['key']}"),
            door["name"],
            door["kind"],
            demo_id("reader", f"{key}/{door['key']}"),
        )
        for door in raw["doors"]
    )
    ours = ("key", "doors", "city_id", "hours_invented")
    fields = {name: raw[name] for name in raw if name not in ours}
    return Place(key, demo_id("place", key), raw["city_id"], doors, fields)


def citizens(city: City, places: Sequence[Place]) -> Iterator[Member]:
    """The inhabitants of one city: a steward, an operator, residents, staff, and members."""
    house = str(demo_id("place", f"house-{city.city_id}"))
    own = [
        str(place.place_id)
        for place in places
        if place.city_id == city.city_id and not place.key.startswith(("house-", "demo-"))
    ]
    dice = random.Random(f"{VERSION}/{city.city_id}")  # noqa: S311 - reproducible on purpose
    for n in range(MEMBERS_PER_CITY):
        key = f"{city.city_id}-{n:02}"
        name = f"{dice.choice(FIRST_NAMES)} {dice.choice(SURNAMES)}"
        email: str | None = None
        roles: tuple[str, ...] = ()
        home: dict[str, str] = {}
        if n == 0:
            email, roles = f"steward@{city.city_id}.example", ("steward",)
        elif n == 1:
            roles = ("operator",)
            if city.city_id == OPERATOR_CITY:  # a login costs the seed a slow hash of its password
                roles = ("operator", "animator")
                email = f"operator@{city.city_id}.example"
        elif n <= 6:
            roles, home = ("resident",), {house: "resident"}
        elif n <= 6 + len(own):
            home = {own[n - 7]: "staff"}
        yield Member(key, demo_id("member", key), city.city_id, name, email, roles, home)


def personas() -> Iterator[Member]:
    """Those whom the demonstration needs for itself; the simulator leaves them alone."""
    house = str(demo_id("place", "house-bourges"))
    for key, name, email, roles, home in (
        ("demo-traveller", "Ada Voyageuse", "member@copass.example", (), {}),
        ("demo-resident", "Rémi Résident", "resident@copass.example", ("resident", "animator"),
         {house: "resident"}),
        ("demo-late", "Lise Tardive", "late@copass.example", ("resident",), {house: "resident"}),
        ("demo-loser", "Lou Perdtout", None, (), {}),
        ("demo-first", "Prem Premier", None, (), {}),
        ("demo-second", "Deva Deuxième", None, (), {}),
        ("demo-third", "Théo Troisième", None, (), {}),
        ("demo-cook", "Cléo Cuisine", None, (), {}),
    ):  # fmt: skip
        yield Member(key, demo_id("member", key), "bourges", name, email, roles, home)


STATES: dict[int, CardState] = {11: "blocked", 17: "replaced"}


def cards_of(people: Sequence[Member]) -> Iterator[Card]:
    """One card each; of thirty inhabitants one is blocked, one replaced, and one has none."""
    for n, member in enumerate(people):
        state = None if n % 30 == 23 else STATES.get(n % 30, "active")
        if member.key.startswith("demo-"):
            state = "active"
        if state is None:
            continue
        second = f"{member.key}/2"
        new = Card(demo_id("card", second), demo_uid(second), member.member_id)
        yield Card(
            demo_id("card", member.key),
            demo_uid(member.key),
            member.member_id,
            state,
            new if state == "replaced" else None,
        )
