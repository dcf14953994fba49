"""What happens to contributions: one transaction each; lock, decide, give the minutes, save, tell.

Locked in this order, everywhere: the members concerned (in id order), the contribution, accounts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from uuid import UUID

from common import outbox
from common.db import Conn
from common.ids import new_id as make_id
from timebank import events, notices
from timebank import service as ledger
from timebank import store as ledger_store
from timebank.contributions import domain, store
from timebank.contributions.domain import (
    Activity,
    Beneficiary,
    Claim,
    Contribution,
    Draft,
    Known,
)
from timebank.domain import Account, Actor, Leg, Rejected, Transfer, TransferRequest
from timebank.notices import NoticeKind
from timebank.pledges import service as pledges

NewId = Callable[[], UUID]
Decision = Contribution | Rejected

TO_CONFIRM: NoticeKind = "contribution.to_confirm"
NOT_FOUND = Rejected("not_found", "There is no such contribution.")
ID_REUSED = Rejected(
    "contribution_id_reused", "Another contribution has this id.", field="body.contribution_id"
)


# ── Logging ─────────────────────────────────────────────────────────────────────────────────────


async def log(
    conn: Conn,
    actor: Actor,
    drafts: Sequence[Draft],
    *,
    group_id: UUID | None = None,
    now: datetime,
) -> tuple[Contribution, ...] | Rejected:
    """Log one contribution, or several together: all of them or none."""
    city_id = await city_of(conn, actor, drafts)
    if city_id is None:
        mine = [draft for draft in drafts if str(draft.giver_id) == actor.id]
        if not mine:
            return domain.NOT_YOURS
        # Identity has not told of them yet, or never will.
        return replace(domain.UNKNOWN_MEMBER, field=f"{mine[0].field}.giver_id")
    if group_id is not None and await store.is_group(conn, group_id):
        return Rejected("group_id_reused", "Another group has this id.", field="body.group_id")
    # Who is being erased meanwhile is erased after this, words and all, or was before.
    await store.keep_members(conn, named_members(drafts))
    known = await know(conn, city_id, drafts, now)
    logged = domain.log_contributions(drafts, actor, known, group_id=group_id, now=now)
    if isinstance(logged, Rejected):
        return logged
    for contribution, draft in zip(logged, drafts, strict=True):
        if not await store.add_contribution(conn, contribution):
            return replace(ID_REUSED, field=f"{draft.field}.contribution_id")
        await tell_state(conn, contribution, now)
        await tell_member(conn, contribution, beneficiary_of(contribution), actor, TO_CONFIRM, now)
    return logged


async def city_of(conn: Conn, actor: Actor, drafts: Sequence[Draft]) -> str | None:
    """The city that the caller can log in: the one that they live in for what they did themself,
    the one whose steward they are for others."""
    own = next((draft.giver_id for draft in drafts if str(draft.giver_id) == actor.id), None)
    member = await ledger_store.find_member(conn, own) if own else None
    if member is not None:
        return member.city_id
    return actor.city_id if actor.steward else None


async def know(conn: Conn, city_id: str, drafts: Sequence[Draft], now: datetime) -> Known:
    """What the city knows of what the drafts name."""
    organisations = {
        draft.beneficiary.id
        for draft in drafts
        if draft.beneficiary.kind == "organisation" and draft.beneficiary.id
    }
    places = {draft.claim.place_id for draft in drafts if draft.claim.place_id is not None}
    return Known(
        city_id=city_id,
        today=await ledger_store.city_today(conn, city_id, now),
        members=await store.find_members(conn, city_id, named_members(drafts)),
        organisations=await store.find_organisations(conn, city_id, organisations),
        places=await store.find_places(conn, city_id, places),
    )


def named_members(drafts: Sequence[Draft]) -> set[UUID]:
    received = {
        draft.beneficiary.id
        for draft in drafts
        if draft.beneficiary.kind == "member" and draft.beneficiary.id
    }
    return {draft.giver_id for draft in drafts} | received


# ── Changing, disputing, ending ─────────────────────────────────────────────────────────────────


async def edit(
    conn: Conn,
    contribution_id: UUID,
    changes: Callable[[Claim], Claim],
    actor: Actor,
    now: datetime,
) -> Decision:
    """The giver's side says it otherwise: a new version. `changes` makes it of the one before."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    claim = changes(before.given.claim)
    known = Known(
        city_id=before.city_id,
        today=await ledger_store.city_today(conn, before.city_id, now),
        places=await store.find_places(
            conn, before.city_id, [claim.place_id] if claim.place_id else []
        ),
    )
    after = domain.edit(before, claim, actor, known, now)
    if isinstance(after, Rejected):
        return after
    await save(conn, before, after, now)
    await tell_member(conn, after, beneficiary_of(after), actor, TO_CONFIRM, now)
    return after


async def dispute(
    conn: Conn,
    contribution_id: UUID,
    *,
    minutes: int,
    note: str | None,
    actor: Actor,
    now: datetime,
) -> Decision:
    """The beneficiary's side says how long it was for them."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    after = domain.dispute(before, minutes, note, actor, now)
    if isinstance(after, Rejected):
        return after
    await save(conn, before, after, now)
    await tell_member(conn, after, after.giver_id, actor, "contribution.disputed", now)
    return after


async def confirm(
    conn: Conn, contribution_id: UUID, *, version: int, actor: Actor, now: datetime, new_id: NewId
) -> Decision:
    """The beneficiary's side agrees: the minutes are given."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    after = domain.confirm(before, version, actor, now)
    return await settle(conn, before, after, actor, "contribution.confirmed", now, new_id)


async def accept(
    conn: Conn, contribution_id: UUID, *, version: int, actor: Actor, now: datetime, new_id: NewId
) -> Decision:
    """The giver takes the beneficiary's word: those minutes are given."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    after = domain.accept(before, version, actor, now)
    return await settle(conn, before, after, actor, "contribution.confirmed", now, new_id)


async def rule(
    conn: Conn,
    contribution_id: UUID,
    *,
    minutes: int,
    note: str | None,
    actor: Actor,
    now: datetime,
    new_id: NewId,
) -> Decision:
    """A mediator settles a dispute: the minutes ruled are given."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    after = domain.rule(before, minutes, note, actor, now)
    return await settle(conn, before, after, actor, "contribution.ruled", now, new_id)


async def withdraw(conn: Conn, contribution_id: UUID, actor: Actor, now: datetime) -> Decision:
    """The giver's side takes it back before it is minutes."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    after = domain.withdraw(before, actor, now)
    if isinstance(after, Rejected):
        return after
    await save(conn, before, after, now)
    for member_id in (after.giver_id, beneficiary_of(after)):
        await tell_member(conn, after, member_id, actor, "contribution.withdrawn", now)
    return after


async def reverse(
    conn: Conn, contribution_id: UUID, actor: Actor, now: datetime, new_id: NewId
) -> Decision:
    """A steward takes back what was confirmed, with what was counted of it towards a pledge."""
    before = await lock(conn, contribution_id)
    if before is None:
        return NOT_FOUND
    after = domain.reverse(before, actor, now)
    if isinstance(after, Rejected):
        return after
    # First what the giver gave of it to the commons: it is part of what they give back.
    uncounted = await pledges.uncount_contribution(conn, after.id, actor=actor, now=now)
    if isinstance(uncounted, Rejected):
        return discreet(uncounted)
    taken_back = await take_minutes_back(conn, after, actor, now, new_id)
    if isinstance(taken_back, Rejected):
        return taken_back
    after = replace(after, reversal_id=taken_back.id)
    await save(conn, before, after, now)
    for member_id in (after.giver_id, beneficiary_of(after)):
        await tell_member(conn, after, member_id, actor, "contribution.reversed", now)
    return after


async def lock(conn: Conn, contribution_id: UUID) -> Contribution | None:
    """A contribution and the members it concerns, locked until the transaction ends."""
    known = await store.find_contribution(conn, contribution_id)
    if known is None:
        return None
    # Who gave, and to whom, never changes.
    await store.lock_members(conn, members_of(known))
    return await store.lock_contribution(conn, contribution_id)


async def save(conn: Conn, before: Contribution, after: Contribution, now: datetime) -> None:
    await store.save_contribution(conn, before, after)
    await tell_state(conn, after, now)


async def settle(
    conn: Conn,
    before: Contribution,
    after: Decision,
    actor: Actor,
    kind: NoticeKind,
    now: datetime,
    new_id: NewId,
) -> Decision:
    """Write how it was decided, giving its minutes when there are any."""
    if isinstance(after, Rejected):
        return after
    if after.status == "confirmed":
        given = await give_minutes(conn, after, actor, now, new_id)
        if isinstance(given, Rejected):
            return given
        after = replace(after, transfer_id=given.id)
    await save(conn, before, after, now)
    await count(conn, after, actor, now)
    for member_id in (after.giver_id, beneficiary_of(after)):
        await tell_member(conn, after, member_id, actor, kind, now)
    return after


async def count(conn: Conn, contribution: Contribution, actor: Actor, now: datetime) -> None:
    """Count what serves all of the city towards the giver's pledge, if they made one."""
    if contribution.confirmed_minutes and contribution.beneficiary.kind in domain.FOR_ALL:
        await pledges.count_contribution(
            conn,
            contribution_id=contribution.id,
            member_id=contribution.giver_id,
            city_id=contribution.city_id,
            minutes=contribution.confirmed_minutes,
            performed_on=contribution.given.claim.performed_on,
            actor=actor,
            now=now,
        )


# ── Minutes ─────────────────────────────────────────────────────────────────────────────────────


async def give_minutes(
    conn: Conn, contribution: Contribution, actor: Actor, now: datetime, new_id: NewId
) -> Transfer | Rejected:
    """Post what was confirmed, from whom it was done for to who did it."""
    return await post(conn, contribution, contribution.confirmed_minutes or 0, actor, now, new_id)


async def take_minutes_back(
    conn: Conn, contribution: Contribution, actor: Actor, now: datetime, new_id: NewId
) -> Transfer | Rejected:
    """Post them back, by a reversal that names the transfer."""
    return await post(
        conn,
        contribution,
        -(contribution.confirmed_minutes or 0),
        actor,
        now,
        new_id,
        reverses=contribution.transfer_id,
    )


async def post(
    conn: Conn,
    contribution: Contribution,
    minutes: int,
    actor: Actor,
    now: datetime,
    new_id: NewId,
    *,
    reverses: UUID | None = None,
) -> Transfer | Rejected:
    """Post minutes to the giver (negative: from them), the beneficiary's account being the other.

    A refusal does not say how others' accounts stand.
    """
    giver = await ledger_store.find_member_account(
        conn, contribution.giver_id, contribution.city_id
    )
    beneficiary = await find_payer(conn, contribution)
    if giver is None or beneficiary is None:
        return Rejected("account_not_found", "One of the two has no account in this city.")
    posted = await ledger.post_now(
        conn,
        TransferRequest(
            transfer_id=new_id(),
            own_id=False,
            key=None,
            # Both sides, or a mediator, have allowed it: the rules above said so.
            actor=actor.for_the_city(contribution.city_id),
            legs=(Leg(beneficiary.id, -minutes), Leg(giver.id, minutes)),
            purpose="contribution",
            reverses=reverses,
        ),
        now,
    )
    if isinstance(posted, Rejected):
        return discreet(posted)
    return posted


async def find_payer(conn: Conn, contribution: Contribution) -> Account | None:
    """The account that gives the minutes; for people of outside the commons does."""
    city_id, to = contribution.city_id, contribution.beneficiary
    if to.kind == "member" and to.id is not None:
        return await ledger_store.find_member_account(conn, to.id, city_id)
    if to.kind == "organisation" and to.id is not None:
        return await ledger_store.find_organisation_account(conn, to.id, city_id)
    return await ledger_store.find_common_account(conn, city_id, "commons")


def discreet(rejected: Rejected) -> Rejected:
    """The refusal without the numbers of an account that may be somebody else's."""
    if rejected.code == "insufficient_time":
        return Rejected(
            "insufficient_time",
            "Who would give these minutes does not have them left. The contribution stays as it is;"
            " try again later.",
        )
    return Rejected(rejected.code, rejected.detail)


async def record_exchange(
    conn: Conn,
    *,
    contribution_id: UUID,
    giver_id: UUID,
    receiver_id: UUID,
    city_id: str,
    minutes: int,
    performed_on: date,
    activity: Activity,
    note: str | None,
    actor: Actor,
    now: datetime,
    new_id: NewId = make_id,
) -> Decision:
    """Log and confirm at once what one member did for another, both having agreed.

    `actor` is either of them, or who may act for them: the caller has checked that. Refused like
    a contribution that is logged (`unknown_member`, `unknown_beneficiary`, `invalid_day`,
    `invalid_minutes` beyond 1440, `contribution_id_reused`) and confirmed (`insufficient_time`, …).
    Whoever calls this rolls back when it is refused, and locks their own rows before; they may
    hold the two accounts, but not the members.
    """
    draft = Draft(
        id=contribution_id,
        giver_id=giver_id,
        beneficiary=Beneficiary("member", receiver_id),
        claim=Claim(minutes, performed_on, activity, note=note),
    )
    # The members are not locked, as elsewhere: the caller may hold their accounts already. The
    # accounts of one who is being erased are closed with them, and the minutes refused.
    refused = domain.check_draft(draft, await know(conn, city_id, [draft], now))
    if refused is not None:
        # The fields are those of another request.
        return replace(refused, field=None)
    if await store.find_contribution(conn, contribution_id) is not None:
        return replace(ID_REUSED, field=None)
    contribution = domain.exchanged(draft, city_id, receiver_id, now)
    given = await give_minutes(conn, contribution, actor, now, new_id)
    if isinstance(given, Rejected):
        return given
    contribution = replace(contribution, transfer_id=given.id)
    if not await store.add_contribution(conn, contribution):
        return replace(ID_REUSED, field=None)
    await tell_state(conn, contribution, now)
    return contribution


# ── Leaving ─────────────────────────────────────────────────────────────────────────────────────


async def withdraw_member(conn: Conn, member_id: UUID, now: datetime) -> None:
    """End what a member who leaves for good has open, given and received; who is left hears of it.

    Comes before `store.forget`; the caller has locked the member.
    """
    for contribution_id in await store.list_open_of(conn, member_id):
        before = await store.lock_contribution(conn, contribution_id)
        if before is None or before.status not in domain.OPEN:
            continue
        after = domain.end(before, now)
        await save(conn, before, after, now)
        for other in members_of(after):
            if other != member_id:
                await notices.tell(
                    conn,
                    member_id=other,
                    kind="contribution.withdrawn",
                    subject=subject_of(after),
                    now=now,
                )


# ── Telling ─────────────────────────────────────────────────────────────────────────────────────


async def tell_state(conn: Conn, contribution: Contribution, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=events.CONTRIBUTIONS,
        key=str(contribution.id),
        type=events.CONTRIBUTION_CHANGED,
        data=events.contribution_changed(contribution),
        now=now,
    )


def beneficiary_of(contribution: Contribution) -> UUID | None:
    """The member it was for, if it was for one."""
    return contribution.beneficiary.id if contribution.beneficiary.kind == "member" else None


def members_of(contribution: Contribution) -> tuple[UUID, ...]:
    to = beneficiary_of(contribution)
    return (contribution.giver_id, to) if to else (contribution.giver_id,)


def subject_of(contribution: Contribution) -> dict[str, UUID | date | str | int | None]:
    minutes = contribution.confirmed_minutes
    if minutes is None:
        last = contribution.ruling or (
            contribution.counter if contribution.status == "disputed" else None
        )
        minutes = (last or contribution.given).claim.minutes
    return {
        "contribution_id": contribution.id,
        "city_id": contribution.city_id,
        "giver_id": contribution.giver_id,
        "version": contribution.version,
        "minutes": minutes,
        "claimed_minutes": contribution.given.claim.minutes,
        "performed_on": contribution.given.claim.performed_on,
        "activity": contribution.given.claim.activity,
        "status": contribution.status,
    }


async def tell_member(
    conn: Conn,
    contribution: Contribution,
    member_id: UUID | None,
    actor: Actor,
    kind: NoticeKind,
    now: datetime,
) -> None:
    """Tell a member, if there is one, and unless they did it themself."""
    if member_id is not None and str(member_id) != actor.id:
        await notices.tell(
            conn, member_id=member_id, kind=kind, subject=subject_of(contribution), now=now
        )
