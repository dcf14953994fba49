"""What the time bank learns from others. It reads the fields that it uses, and no others."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.clock import Clock
from common.consumer import Handler
from common.db import Conn
from common.events import Event
from common.ids import new_id
from timebank import service
from timebank import store as ledger_store
from timebank.clearing import rotation, waiting
from timebank.clearing import service as clearing
from timebank.clearing.handover import KEYS_MAX
from timebank.clearing.keys import Vault
from timebank.clearing.messages import CityId, read_message
from timebank.contributions import store as contributions
from timebank.events import CHECKPOINTS, CITY_KEYS, CLEARING, COSIGNATURES
from timebank.log import cosigning
from timebank.netting import service as netting
from timebank.pledges import service as pledges
from timebank.privacy import service as privacy
from timebank.reconciliation import service as reconciliation
from timebank.standings import store as standings_store

GROUP = "timebank"
CLEARING_GROUP = "timebank-clearing"
# How long what is in flight between cities may take before somebody is told.
OVERDUE = timedelta(hours=1)
CITIES = "identity.cities.v1"
MEMBERS = "identity.members.v1"
PLACES = "places.places.v1"


class CityChanged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    city_id: str
    version: int = Field(gt=0)
    status: Literal["active", "left"]
    timezone: str


class MemberChanged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    member_id: UUID
    version: int = Field(gt=0)
    city_id: str
    status: Literal["active", "suspended", "erased"]


class PlaceChanged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    place_id: UUID
    version: int = Field(gt=0)
    city_id: str
    status: Literal["in_network", "suspended", "closed"]


class CityKeyChanged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    city_id: CityId
    version: int = Field(gt=0)
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    # Looked at by whoever reads the statements. None: as it was told before keys were handed over.
    keys: list[dict[str, Any]] | None = Field(default=None, max_length=KEYS_MAX)


class ProofFrom(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    size: int = Field(alias="from", gt=0)
    hashes: list[str] = Field(max_length=130)


class CheckpointSigned(BaseModel):
    model_config = ConfigDict(extra="ignore")
    city_id: str
    note: str = Field(max_length=100_000)
    proofs: list[ProofFrom] = Field(max_length=100)


class CheckpointCosigned(BaseModel):
    model_config = ConfigDict(extra="ignore")
    city_id: str
    cosigner: str
    note: str = Field(max_length=100_000)


def clearing_handlers(
    vault: Vault, clock: Clock, overdue: timedelta = OVERDUE
) -> dict[str, Handler]:
    """What other cities, and those of ours, say about clearing."""

    async def on_key(conn: Conn, event: Event) -> None:
        city = CityKeyChanged.model_validate(event.data)
        more = await rotation.hear_keys(
            conn, city.city_id, city.version, city.public_key, city.keys, clock()
        )
        if more:
            for message in await waiting.take_back(conn, city.city_id):
                await clearing.hear(conn, vault, message, clock())

    async def on_message(conn: Conn, event: Event) -> None:
        message = read_message(event.data)
        about = message.body.kind.partition(".")[0]
        if about == "netting":
            await netting.hear(conn, vault, message, clock())
        elif about == "pair":
            await reconciliation.hear(conn, vault, message, clock(), overdue=overdue)
        else:
            await clearing.hear(conn, vault, message, clock())

    async def on_checkpoint(conn: Conn, event: Event) -> None:
        told = CheckpointSigned.model_validate(event.data)
        proofs = {each.size: cosigning.read_hashes(each.hashes) for each in told.proofs}
        await cosigning.hear_checkpoint(conn, vault, told.city_id, told.note, proofs, clock())

    async def on_cosignature(conn: Conn, event: Event) -> None:
        told = CheckpointCosigned.model_validate(event.data)
        await cosigning.hear_cosignature(conn, told.city_id, told.cosigner, told.note, clock())

    return {
        CITY_KEYS.name: on_key,
        CLEARING.name: on_message,
        CHECKPOINTS.name: on_checkpoint,
        COSIGNATURES.name: on_cosignature,
    }


def handlers(clock: Clock, serves: Callable[[str], bool] = lambda _: True) -> dict[str, Handler]:
    """The handlers by topic. Each survives a message that comes twice, and an older one late.

    `serves`: whether a city's book is kept here; what is said of others is for other time banks.
    """

    async def on_city(conn: Conn, event: Event) -> None:
        city = CityChanged.model_validate(event.data)
        if not serves(city.city_id) or await ledger_store.is_away(conn, city.city_id):
            return
        state = service.CityState(city.city_id, city.status, city.timezone, city.version)
        await service.apply_city(conn, state, clock(), new_id)
        # Days and months end by the city's clock, which may be another one now.
        await standings_store.expect_all_of(conn, city.city_id, clock())

    async def on_member(conn: Conn, event: Event) -> None:
        member = MemberChanged.model_validate(event.data)
        if member.status == "erased":
            # Before their accounts are closed. Nothing comes after it: whatever the version.
            await privacy.forget(conn, member.member_id, clock())
        if not serves(member.city_id) or await ledger_store.is_away(conn, member.city_id):
            return
        state = service.MemberState(member.member_id, member.city_id, member.status, member.version)
        await service.apply_member(conn, state, clock(), new_id)
        await pledges.follow_member(conn, member.member_id, clock())

    async def on_place(conn: Conn, event: Event) -> None:
        place = PlaceChanged.model_validate(event.data)
        await contributions.save_place(
            conn,
            place_id=place.place_id,
            city_id=place.city_id,
            status=place.status,
            version=place.version,
        )

    return {CITIES: on_city, MEMBERS: on_member, PLACES: on_place}
