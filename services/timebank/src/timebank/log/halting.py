"""A log that signs nothing any more: why, and on what grounds it may go on.

It may when it holds all that was ever signed in its name: the newest checkpoint that this database,
the topics or those who cosigned know of is one of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from common.db import Conn
from common.logging import get_logger
from copass_verify.checkpoints import Checkpoint, WrongCheckpoint, parse_checkpoint
from copass_verify.notes import WrongKey, WrongNote, open_note, to_verifier
from timebank.clearing import keys_store
from timebank.clearing.handover import Chain
from timebank.log import cosigning_store, service, store
from timebank.log.domain import origin_of

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lifted:
    """The newest checkpoint that others have, which the log holds; who signed it."""

    size: int
    signed_by: tuple[str, ...]


class StillHalted(Exception):
    """The log may not go on; the message says why."""


async def halt(conn: Conn, city_id: str, why: str, note: str | None, now: datetime) -> None:
    """Let a log sign nothing more, and keep why; its head is locked. Again, nothing."""
    head = await store.lock_head(conn, city_id)
    if head.halted is not None:
        return
    log.error("log_halted", city=city_id, why=why)
    await cosigning_store.halt(conn, city_id, why)
    await cosigning_store.add_halt(conn, city_id, "halted", why, note, now)


async def lift(conn: Conn, city_id: str, heard: Sequence[str], now: datetime) -> Lifted:
    """Let a log go on, if it holds what others do; `heard`: notes of it from the topics.

    Raises StillHalted, with nothing changed, when it may not; LookupError when it is not halted.
    """
    head = await store.lock_head(conn, city_id)
    if head.halted is None:
        raise LookupError(f"the log of {city_id} is not halted")
    chain = await keys_store.own_chain(conn, city_id)
    if chain is None:
        raise StillHalted("the city has no key here")
    told = await keys_store.peer_chain(conn, city_id)
    if told is not None and not chain.goes_on_from(told):
        raise StillHalted("the city's key was handed over, and the new one is not here")
    known = [*heard, *await cosigning_store.notes_of(conn, city_id)]
    newest: tuple[int, Sequence[str], str] | None = None
    for raw in known:
        found = read_own(chain, city_id, raw)
        if found is None:
            continue
        checkpoint = found[0]
        await compare(conn, city_id, head.size, checkpoint)
        cosigned = await cosigning_store.cosigners_of(conn, city_id, checkpoint.size)
        if newest is None or checkpoint.size > newest[0]:
            newest = (checkpoint.size, sorted({*found[1], *cosigned}), raw)
    if newest is None:
        raise StillHalted("nobody knows a checkpoint that it signed: nothing to compare with")
    size, signed_by, raw = newest
    who = ", ".join(signed_by)
    why = f"it holds the newest checkpoint known, of {size} entries, signed by {who}"
    await cosigning_store.lift_halt(conn, city_id)
    await cosigning_store.add_halt(conn, city_id, "lifted", why, raw, now)
    log.warning("log_halt_lifted", city=city_id, size=size)
    return Lifted(size, tuple(signed_by))


async def compare(conn: Conn, city_id: str, size: int, checkpoint: Checkpoint) -> None:
    """Raises StillHalted unless the log begins with what was signed."""
    if checkpoint.size > size:
        missing = checkpoint.size - size
        raise StillHalted(
            f"{checkpoint.size} entries were signed, and {size} are here: {missing} are missing."
            " Bring back a database that has them."
        )
    if await service.root_at(conn, city_id, checkpoint.size) != checkpoint.root:
        raise StillHalted(
            f"another history of {checkpoint.size} entries was signed: this one was never shown."
        )


def read_own(chain: Chain, city_id: str, raw: str) -> tuple[Checkpoint, list[str]] | None:
    """A checkpoint that the city signed with the key of its size, and who else's name is under it;
    None for anything else."""
    try:
        size = parse_checkpoint(raw.split("\n\n")[0] + "\n").size
        verifier = to_verifier(origin_of(city_id), chain.key_at(size))
        checkpoint = parse_checkpoint(open_note(raw.encode(), [verifier]).text)
    except (WrongNote, WrongCheckpoint, WrongKey):
        return None
    if checkpoint.origin != origin_of(city_id) or checkpoint.size == 0:
        return None
    return checkpoint, [city_id]
