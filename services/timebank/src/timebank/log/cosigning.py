"""Cities keep each other's logs honest: each cosigns what the others sign, once it has seen that it
only grew; and none goes on with a past that others do not have.

A checkpoint is told with the proofs that its cosigners need. What they hold comes back, with the
city's own signature under it; if it is later than what the city has, or other, the city's database
is an old one that was brought back, or somebody wrote it anew. Then it signs nothing more.
"""

import base64
from datetime import UTC, datetime

from common import outbox
from common.db import Conn
from common.logging import get_logger
from copass_verify.checkpoints import Checkpoint, WrongCheckpoint, parse_checkpoint
from copass_verify.merkle import WrongProof, verify_consistency
from copass_verify.notes import (
    DASH,
    Note,
    Signer,
    Verifier,
    WrongNote,
    format_note,
    open_note,
    split_note,
    to_verifier,
)
from timebank import events
from timebank import store as ledger_store
from timebank.clearing import keys_store
from timebank.clearing.handover import Chain
from timebank.clearing.keys import Vault
from timebank.log import cosigning_store as store
from timebank.log import halting, service
from timebank.log import store as log_store
from timebank.log.cosigning_store import Seen
from timebank.log.domain import origin_of

log = get_logger(__name__)


def read_note(raw: str, city_id: str, verifiers: list[Verifier]) -> tuple[Note, Checkpoint]:
    """A checkpoint of a city's log that it signed itself. Raises WrongNote or WrongCheckpoint."""
    note = open_note(raw.encode(), verifiers)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != origin_of(city_id) or checkpoint.size == 0:
        raise WrongCheckpoint(f"it is no checkpoint of {city_id}")
    if not any(each.verifier == verifiers[0] for each in note.signatures):
        raise WrongNote("unverified", f"{city_id} did not sign it")
    return note, checkpoint


def line_of(note: str, verifier: Verifier) -> str:
    """The line of a note with this key's signature, as it stands there."""
    for line in note.splitlines(keepends=True):
        if line.startswith(f"{DASH}{verifier.name} "):
            encoded = line.removeprefix(f"{DASH}{verifier.name} ").strip()
            if base64.b64decode(encoded)[: len(verifier.key_id)] == verifier.key_id:
                return line
    raise WrongNote("unverified", f"{verifier.name} did not sign it")


# ── Telling ─────────────────────────────────────────────────────────────────────────────────────


async def tell_seen(
    conn: Conn, cosigner: str, city_id: str, seen: Seen, now: datetime, *, fork: bool = False
) -> None:
    """Publish what a city of ours holds of another's log."""
    await outbox.add(
        conn,
        topic=events.COSIGNATURES,
        key=f"{city_id} {cosigner}",
        type=events.CHECKPOINT_COSIGNED,
        data=events.checkpoint_cosigned(city_id, cosigner, seen.size, seen.note, fork=fork),
        now=now,
    )


# ── Hearing ─────────────────────────────────────────────────────────────────────────────────────


async def hear_checkpoint(
    conn: Conn, vault: Vault, city_id: str, raw: str, proofs: dict[int, list[bytes]], now: datetime
) -> None:
    """A city signed a checkpoint: ours that have an agreement with it cosign, or refuse to."""
    if await ledger_store.has_book(conn, city_id):
        await hear_of_own(conn, city_id, raw, now)
    for cosigner, peer_key in await store.cosigners_for(conn, city_id):
        chain = await keys_store.with_handovers(conn, city_id, peer_key)
        try:
            verifier = verifier_of(chain, city_id, raw)
            _, checkpoint = read_note(raw, city_id, [verifier])
        except (WrongNote, WrongCheckpoint) as error:
            log.warning("checkpoint_not_believed", city=city_id, by=cosigner, reason=str(error))
            continue
        signer = await service.signer_of(conn, vault, cosigner, cosigns=True)
        if signer is not None:
            own = line_of(raw, verifier)
            await cosign(conn, signer, cosigner, city_id, checkpoint, own, proofs, now)


async def cosign(
    conn: Conn,
    signer: Signer,
    cosigner: str,
    city_id: str,
    checkpoint: Checkpoint,
    own_line: str,
    proofs: dict[int, list[bytes]],
    now: datetime,
) -> None:
    """Cosign a checkpoint that goes on from the last one that was; say what is held otherwise."""
    held = await store.lock_seen(conn, cosigner, city_id)
    if held is not None:
        if checkpoint.size == held.size and checkpoint.root == held.root:
            return
        if checkpoint.size > held.size and held.size not in proofs:
            # Next time it will bring the proof from here.
            await tell_seen(conn, cosigner, city_id, held, now)
            return
        if checkpoint.size < held.size:
            # An old one, heard late; or one that forgot: it is told what it had signed.
            await tell_seen(conn, cosigner, city_id, held, now)
            return
        try:
            verify_consistency(
                held.size,
                checkpoint.size,
                held.root,
                checkpoint.root,
                proofs.get(held.size, []),
            )
        except WrongProof as error:
            log.error(
                "log_forked", city=city_id, held=held.size, shown=checkpoint.size, why=str(error)
            )
            await tell_seen(conn, cosigner, city_id, held, now, fork=True)
            return
    text = str(checkpoint)
    (own,) = split_note(f"{text}\n{own_line}".encode())[1]
    note = format_note(text, [own, signer.cosign(text, int(now.timestamp()))])
    seen = Seen(checkpoint.size, checkpoint.root, note, now)
    await store.save_seen(conn, cosigner, city_id, seen)
    await tell_seen(conn, cosigner, city_id, seen, now)


async def hear_cosignature(
    conn: Conn, city_id: str, cosigner: str, raw: str, now: datetime
) -> None:
    """What another city holds of a log of ours: kept beside our checkpoint, if it is ours."""
    if not await ledger_store.has_book(conn, city_id):
        return
    checkpoint = await hear_of_own(conn, city_id, raw, now)
    key = await store.key_of_peer(conn, city_id, cosigner)
    chain = await keys_store.own_chain(conn, city_id)
    if checkpoint is None or key is None or chain is None:
        return
    # It may have cosigned before it handed over its key.
    known = (await keys_store.with_handovers(conn, cosigner, key)).keys
    verifiers = [to_verifier(origin_of(cosigner), each, cosigns=True) for each in known]
    try:
        note, _ = read_note(raw, city_id, [verifier_of(chain, city_id, raw), *verifiers])
        found = [each for each in note.signatures if each.verifier in verifiers]
        if not found or found[0].signed_at is None:
            raise WrongNote("unverified", f"{cosigner} did not cosign it")
        signed_at = datetime.fromtimestamp(found[0].signed_at, UTC)
        line = line_of(raw, found[0].verifier)
    except (WrongNote, WrongCheckpoint, OverflowError, OSError, ValueError) as error:
        log.warning("cosignature_not_believed", city=city_id, by=cosigner, reason=str(error))
        return
    await store.add_cosignature(conn, city_id, checkpoint.size, cosigner, line, signed_at)


def verifier_of(chain: Chain, city_id: str, raw: str) -> Verifier:
    """The key with which the city must have signed this checkpoint: that of its size.

    Raises WrongNote or WrongCheckpoint when it is none.
    """
    size = parse_checkpoint(split_note(raw.encode())[0]).size
    return to_verifier(origin_of(city_id), chain.key_at(size))


async def hear_of_own(conn: Conn, city_id: str, raw: str, now: datetime) -> Checkpoint | None:
    """A checkpoint of ours comes back from outside: it must be what we have, or we stop signing.

    The checkpoint when it is; None when it is not, or when we never signed it.
    """
    chain = await keys_store.own_chain(conn, city_id)
    if chain is None:
        return None
    try:
        _, checkpoint = read_note(raw, city_id, [verifier_of(chain, city_id, raw)])
    except (WrongNote, WrongCheckpoint) as error:
        log.warning("checkpoint_not_ours", city=city_id, reason=str(error))
        return None
    head = await log_store.lock_head(conn, city_id)
    if checkpoint.size > head.size:
        why = f"{checkpoint.size} entries were signed, and only {head.size} are here"
    elif await service.root_at(conn, city_id, checkpoint.size) != checkpoint.root:
        why = f"another history of {checkpoint.size} entries was signed"
    else:
        return checkpoint
    await halting.halt(conn, city_id, why, raw, now)
    return None


# ── What comes from outside ─────────────────────────────────────────────────────────────────────


def read_hashes(items: list[str]) -> list[bytes]:
    """Raises ValueError for what is no base64."""
    return [base64.b64decode(item, validate=True) for item in items]
