"""What happens to agreements: proposed and accepted by stewards, heard from the other city."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from common.db import Conn
from common.ids import new_id
from common.logging import get_logger
from timebank import service as ledger
from timebank.clearing import domain
from timebank.clearing import store as clearing_store
from timebank.clearing.agreements import store
from timebank.clearing.agreements.store import Bond
from timebank.clearing.domain import Agreement
from timebank.clearing.keys import Vault
from timebank.clearing.messages import ChangeBody, Message, TermsBody
from timebank.clearing.sending import say
from timebank.domain import AccountKind, Actor, Rejected

log = get_logger(__name__)


async def propose(
    conn: Conn,
    vault: Vault,
    actor: Actor,
    city_id: str,
    agreement_id: UUID,
    agreement: Agreement,
    now: datetime,
) -> Bond | Rejected:
    """Propose an agreement to another city, or new terms for the one there is."""
    if refused := not_steward(actor, city_id):
        return refused
    peer_key = await clearing_store.find_peer_key(conn, agreement.peer_city_id)
    if peer_key is None:
        return Rejected(
            "unknown_city", "Nobody has heard of this city yet.", field="body.peer_city_id"
        )
    known = await store.lock_bond(conn, city_id, agreement.peer_city_id)
    if known and known.agreement.state not in ("proposed", "ended"):
        return Rejected("agreement_exists", "There is an agreement in force: end it first.")
    if known and known.agreement.state == "proposed" and not known.proposed_by_us:
        return Rejected("agreement_exists", "This city has proposed one: accept it, or end it.")
    bond = Bond(
        city_id=city_id,
        agreement_id=agreement_id,
        agreement=replace(agreement, state="proposed"),
        proposed_by_us=True,
        suspended_by_us=False,
        suspended_by_peer=False,
        peer_key=peer_key,
        version=known.version if known else 0,
        changed_at=now,
    )
    saved = await store.save_bond(conn, bond, change="proposed", by=actor.id, now=now)
    await say_terms(conn, vault, saved, "agreement.proposed", now)
    return saved


async def accept(
    conn: Conn,
    vault: Vault,
    actor: Actor,
    city_id: str,
    peer_city_id: str,
    *,
    levy_out_permille: int,
    levy_in_permille: int,
    now: datetime,
) -> Bond | Rejected:
    """Accept what another city proposed, with our own levies; its key is pinned from now on."""
    found = await steward_bond(conn, actor, city_id, peer_city_id)
    if isinstance(found, Rejected):
        return found
    if found.agreement.state != "proposed" or found.proposed_by_us:
        return Rejected("agreement_state", "There is nothing of theirs to accept.")
    agreement = replace(
        found.agreement,
        state="active",
        levy_out_permille=levy_out_permille,
        levy_in_permille=levy_in_permille,
    )
    await open_pair(conn, city_id, peer_city_id, now)
    saved = await store.save_bond(
        conn, replace(found, agreement=agreement), change="accepted", by=actor.id, now=now
    )
    await say_terms(conn, vault, saved, "agreement.accepted", now)
    return saved


async def change(
    conn: Conn,
    vault: Vault,
    actor: Actor,
    city_id: str,
    peer_city_id: str,
    kind: str,
    now: datetime,
) -> Bond | Rejected:
    """Suspend, resume or end an agreement. `kind`: suspended, resumed, ended."""
    found = await steward_bond(conn, actor, city_id, peer_city_id)
    if isinstance(found, Rejected):
        return found
    changed = changed_by(found, kind, ours=True)
    if changed is None:
        return Rejected("agreement_state", f"The agreement is {found.agreement.state}.")
    saved = await store.save_bond(conn, changed, change=kind, by=actor.id, now=now)
    body = ChangeBody.model_validate(
        {"kind": f"agreement.{kind}", "agreement_id": found.agreement_id}
    )
    await say(conn, vault, city_id, peer_city_id, body, now)
    return saved


def changed_by(bond: Bond, kind: str, *, ours: bool) -> Bond | None:
    """The agreement after one side changed it; None when that changes nothing.

    Either side may suspend it; it is in force again when nobody does.
    """
    state = bond.agreement.state
    if kind == "ended":
        return None if state == "ended" else with_state(bond, "ended")
    if state not in ("active", "suspended"):
        return None
    by_us = kind == "suspended" if ours else bond.suspended_by_us
    by_peer = bond.suspended_by_peer if ours else kind == "suspended"
    if (by_us, by_peer) == (bond.suspended_by_us, bond.suspended_by_peer):
        return None
    changed = replace(bond, suspended_by_us=by_us, suspended_by_peer=by_peer)
    return with_state(changed, "suspended" if by_us or by_peer else "active")


def with_state(bond: Bond, state: domain.AgreementState) -> Bond:
    return replace(bond, agreement=replace(bond.agreement, state=state))


async def say_terms(conn: Conn, vault: Vault, bond: Bond, kind: str, now: datetime) -> None:
    agreement = bond.agreement
    body = TermsBody.model_validate(
        {
            "kind": kind,
            "agreement_id": bond.agreement_id,
            "limit_out_minutes": agreement.limit_out_minutes,
            "limit_in_minutes": agreement.limit_in_minutes,
            "soft_percent": agreement.soft_percent,
        }
    )
    await say(conn, vault, bond.city_id, bond.peer_city_id, body, now)


async def hear_agreement(
    conn: Conn, bond: Bond | None, key: bytes, message: Message, now: datetime
) -> None:
    """What the peer says of an agreement. Its limits are ours the other way round."""
    body, city_id = message.body, message.to_city
    if body.kind == "agreement.proposed":
        if bond and bond.agreement.state not in ("ended", "proposed"):
            return
        if bond and bond.agreement_id == body.agreement_id:
            return
        ours = bond is not None and bond.agreement.state == "proposed" and bond.proposed_by_us
        if ours and city_id < message.from_city:
            return  # both proposed at once: the one of the city whose name comes first stands
        heard = Bond(
            city_id=city_id,
            agreement_id=body.agreement_id,
            agreement=Agreement(
                peer_city_id=message.from_city,
                state="proposed",
                limit_out_minutes=body.limit_in_minutes,
                limit_in_minutes=body.limit_out_minutes,
                soft_percent=body.soft_percent,
            ),
            proposed_by_us=False,
            suspended_by_us=False,
            suspended_by_peer=False,
            peer_key=key,
            version=bond.version if bond else 0,
            changed_at=now,
        )
        await store.save_bond(conn, heard, change="proposed", by=message.from_city, now=now)
        return
    if bond is None or bond.agreement_id != body.agreement_id:
        return
    if body.kind == "agreement.accepted":
        agreement = bond.agreement
        agreed = (body.limit_in_minutes, body.limit_out_minutes)
        if agreement.state != "proposed" or not bond.proposed_by_us:
            return
        if agreed != (agreement.limit_out_minutes, agreement.limit_in_minutes):
            log.error("agreement_differs", city_id=city_id, peer=message.from_city)
            return
        await open_pair(conn, city_id, message.from_city, now)
        await store.save_bond(
            conn, with_state(bond, "active"), change="accepted", by=message.from_city, now=now
        )
        return
    kind = body.kind.removeprefix("agreement.")
    changed = changed_by(bond, kind, ours=False)
    if changed is not None:
        await store.save_bond(conn, changed, change=kind, by=message.from_city, now=now)


def not_steward(actor: Actor, city_id: str) -> Rejected | None:
    if actor.is_steward_of(city_id):
        return None
    if actor.may_know_of(city_id):
        return Rejected("forbidden", "Only a steward of the city agrees for it.")
    return Rejected("not_found", "There is no such agreement.")


async def steward_bond(
    conn: Conn, actor: Actor, city_id: str, peer_city_id: str
) -> Bond | Rejected:
    if refused := not_steward(actor, city_id):
        return refused
    bond = await store.lock_bond(conn, city_id, peer_city_id)
    return bond or Rejected("not_found", "There is no such agreement.")


async def open_pair(conn: Conn, city_id: str, peer_city_id: str, now: datetime) -> None:
    """Open the two accounts that clearing with a peer moves, unless they are open."""
    kinds: tuple[AccountKind, ...] = ("in_transit", "clearing")
    for kind in kinds:
        await ledger.open_account(
            conn,
            account_id=new_id(),
            city_id=city_id,
            kind=kind,
            owner_id=None,
            peer_city_id=peer_city_id,
            floor_minutes=None,
            now=now,
        )
