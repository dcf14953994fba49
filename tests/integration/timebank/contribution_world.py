"""A city that contributes: people with roles, an organisation, places, and a fixed day."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import httpx

from common.ids import new_id

# 00:30 of the 23rd in Nantes.
NOW = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
TODAY = date(2026, 11, 23)

ROLES = {
    "stella": ("steward",),
    "steve": ("steward",),
    "olga": ("operator",),
    "carl": ("connector",),
    "ana": ("animator",),
    "mia": ("mediator",),
}


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def field_of(answer: httpx.Response) -> str:
    field: str = answer.json()["errors"][0]["field"]
    return field


COMMONS = {"kind": "commons"}


@dataclass
class World:
    """Anna, Bruno and those with roles live in Nantes; Chloé in Bourges."""

    bank: Any
    organisation: UUID
    place: UUID

    def who(self, name: str) -> Any:
        city = "bourges" if name == "chloe" else "nantes"
        return self.bank.caller(name, city, *ROLES.get(name, ()))

    def id_of(self, name: str) -> str:
        return str(self.bank.members[name])

    def to(self, name: str) -> dict[str, str]:
        return {"kind": "member", "id": self.id_of(name)}

    def to_organisation(self) -> dict[str, str]:
        return {"kind": "organisation", "id": str(self.organisation)}

    def body(self, to: dict[str, str], minutes: int = 120, **more: Any) -> dict[str, Any]:
        return {
            "beneficiary": to,
            "minutes": minutes,
            "performed_on": TODAY.isoformat(),
            "activity": "cooking",
            **more,
        }

    async def log(
        self, giver: str, to: dict[str, str], minutes: int = 120, **more: Any
    ) -> dict[str, Any]:
        answer = await self.who(giver).post("contributions", self.body(to, minutes, **more))
        assert answer.status_code == 201, answer.text
        logged: dict[str, Any] = answer.json()
        return logged

    async def act(
        self, name: str, step: str, contribution: dict[str, Any], body: Any = None, **more: Any
    ) -> httpx.Response:
        """`confirm` and `accept` name the version that `contribution` shows, unless told."""
        if step in ("confirm", "accept") and body is None:
            body = {"version": contribution["version"]}
        path = f"contributions/{contribution['contribution_id']}/{step}"
        answer: httpx.Response = await self.who(name).post(path, body, **more)
        return answer

    async def read(self, name: str, contribution: dict[str, Any]) -> httpx.Response:
        answer: httpx.Response = await self.who(name).get(
            f"contributions/{contribution['contribution_id']}"
        )
        return answer

    async def confirmed(
        self, giver: str, to: dict[str, str], by: str, minutes: int = 120
    ) -> dict[str, Any]:
        logged = await self.log(giver, to, minutes)
        answer = await self.act(by, "confirm", logged)
        assert answer.status_code == 200, answer.text
        done: dict[str, Any] = answer.json()
        return done

    async def balance(self, name: str) -> int:
        minutes: int = await self.bank.balance(name)
        return minutes

    async def told(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """The notices of a kind: to whom, and what of."""
        rows = await self.bank.pool.fetch(
            "SELECT key, payload FROM outbox WHERE topic = 'timebank.notices.v1'"
            " AND payload->>'kind' = $1 ORDER BY id",
            kind,
        )
        names = {str(id_): name for name, id_ in self.bank.members.items()}
        return [(names[row["key"]], row["payload"]["subject"]) for row in rows]

    async def states(self, contribution: dict[str, Any]) -> list[dict[str, Any]]:
        """What was published of a contribution, in order."""
        rows = await self.bank.pool.fetch(
            "SELECT payload FROM outbox WHERE topic = 'timebank.contributions.v1' AND key = $1"
            " ORDER BY id",
            contribution["contribution_id"],
        )
        return [row["payload"] for row in rows]


async def make_world(bank: Any) -> World:
    for name in ROLES:
        await bank.join(name, "nantes")
    organisation, place = new_id(), new_id()
    bank.accounts["fablab"] = new_id()
    opened = await bank.caller("stella", "nantes", "steward").post(
        "accounts",
        {
            "account_id": str(bank.accounts["fablab"]),
            "city_id": "nantes",
            "owner_id": str(organisation),
            "floor_minutes": -600,
        },
    )
    assert opened.status_code == 201, opened.text
    await bank.pool.execute(
        "INSERT INTO place (place_id, version, city_id, status)"
        " VALUES ($1, 1, 'nantes', 'in_network')",
        place,
    )
    bank.app.state.clock = lambda: NOW
    return World(bank, organisation, place)
