"""What the seed leaves behind for the demonstration, the simulator and the benches: demo.json.

It holds what only the services could tell (the readers' keys) and what a person at the terminal
wants to know (logins, cards). Everything else is computed again from `demo_data`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from copass.demo_api import PORTS, Login
from copass.demo_data import ADMIN_EMAIL, OPERATOR_CITY, PASSWORD, DemoNetwork, Member
from copass.network import state_folder

FILE_NAME = "demo.json"
Home = Annotated[
    Path,
    typer.Option(
        default_factory=state_folder, show_default=False, help="The state folder (COPASS_HOME)."
    ),
]
ADMIN = Login(ADMIN_EMAIL, PASSWORD)


class NotSeeded(Exception):
    """There is no demo network here. The text says what to do."""


@dataclass(frozen=True, slots=True)
class DemoState:
    """`reader_keys`: door id → what its reader presents as bearer token."""

    fingerprint: str
    complete: bool = False
    reader_keys: dict[UUID, str] = field(default_factory=dict)


def steward_of(city_id: str) -> Login:
    return Login(f"steward@{city_id}.example", PASSWORD)


def login_of(member: Member) -> Login:
    if member.email is None:
        raise ValueError(f"{member.name} has no login")
    return Login(member.email, PASSWORD)


def save_state(home: Path, network: DemoNetwork, state: DemoState) -> None:
    """Writes the file whole or not at all; it opens doors, so only its owner may read it."""
    path = home / FILE_NAME
    making = path.with_suffix(".making")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(as_json(network, state), file, ensure_ascii=False, indent=1)
    making.replace(path)


def load_state(home: Path) -> DemoState | None:
    """None when there is no such file, or none that can be read."""
    try:
        raw = json.loads((home / FILE_NAME).read_text(encoding="utf-8"))
        keys = {UUID(reader["door_id"]): str(reader["key"]) for reader in raw["readers"]}
        return DemoState(raw["fingerprint"], raw["complete"], keys)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def need_state(home: Path, network: DemoNetwork) -> DemoState:
    state = load_state(home)
    if state is None or not state.complete or state.fingerprint != network.fingerprint:
        raise NotSeeded(f"no demo network in {home}: run `make up` (or `python -m copass seed`)")
    return state


def service_urls(home: Path) -> dict[str, str]:
    """The base URLs that the running network wrote. Raises NotSeeded when nothing runs."""
    try:
        run = json.loads((home / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotSeeded(f"nothing runs in {home}: run `make up` first") from error
    return {name: str(run[name]) for name in PORTS if name in run}


def as_json(network: DemoNetwork, state: DemoState) -> dict[str, Any]:
    people = {member.member_id: member for member in network.members}
    personas = {"member": "demo-traveller", "resident": "demo-resident"}
    logins = {role: network.member(key) for role, key in personas.items()} | {
        "steward": network.member(f"{OPERATOR_CITY}-00"),
        "operator": network.member(f"{OPERATOR_CITY}-01"),
    }
    return {
        "fingerprint": state.fingerprint,
        "complete": state.complete,
        "logins": {
            "federation_admin": {"email": ADMIN.email, "password": ADMIN.password},
            **{
                role: {
                    "email": member.email,
                    "password": PASSWORD,
                    "member_id": str(member.member_id),
                    "city_id": member.city_id,
                }
                for role, member in logins.items()
            },
        },
        "readers": [
            {
                "reader_id": str(door.reader_id),
                "key": state.reader_keys[door.door_id],
                "door_id": str(door.door_id),
                "door": f"{place.name}, {door.name}",
                "kind": door.kind,
                "place_id": str(place.place_id),
                "city_id": place.city_id,
                "opening_hours": place.fields["opening_hours"],
            }
            for place, door in network.doors()
            if door.door_id in state.reader_keys
        ],
        "cards": [
            {
                "card_id": str(card.card_id),
                "uid": card.uid,
                "status": card.state,
                "member_id": str(card.member_id),
                "city_id": people[card.member_id].city_id,
                "holder": people[card.member_id].name,
            }
            for one in network.cards
            for card in (one, one.replaced_by)
            if card is not None
        ],
    }
