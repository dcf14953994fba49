"""What happens to rent credits, each in one transaction: lock the member, decide, post, save."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from common.db import Conn
from common.ids import new_id
from timebank import notices, service
from timebank import store as ledger_store
from timebank.domain import Actor, Leg, Rejected, TransferRequest
from timebank.pledges import store as pledges_store
from timebank.pledges.domain import month_of
from timebank.rent import store
from timebank.rent.domain import NOT_FOUND, RentCredit, check_reversal, make_credit
from timebank.rules import store as rules_store


async def make(
    conn: Conn,
    actor: Actor,
    *,
    rent_credit_id: UUID,
    member_id: UUID,
    organisation_id: UUID,
    minutes: int,
    now: datetime,
) -> RentCredit | Rejected:
    """Give minutes of one's own to an organisation of one's city, for rent of this month."""
    member = (await pledges_store.lock_members(conn, [member_id])).get(member_id)
    if member is None or actor.id != str(member_id):
        return Rejected("not_found", "There is no such member.")
    payee = await ledger_store.find_organisation_account(conn, organisation_id, member.city_id)
    payer = await ledger_store.find_member_account(conn, member_id, member.city_id)
    if payee is None or payer is None:
        return Rejected(
            "account_not_found",
            "This organisation has no account in your city.",
            field="body.organisation_id",
        )
    month = month_of(await ledger_store.city_today(conn, member.city_id, now))
    transfer_id = new_id()
    wanted = RentCredit(
        id=rent_credit_id,
        member_id=member_id,
        organisation_id=organisation_id,
        city_id=member.city_id,
        month=month,
        minutes=minutes,
        cents_per_hour=0,
        credit_cents=0,
        transfer_id=transfer_id,
        made_at=now,
    )
    credit = make_credit(
        wanted,
        await rules_store.find_rules(conn, member.city_id),
        used_minutes=await store.used_minutes(conn, member_id, member.city_id, month),
    )
    if isinstance(credit, Rejected):
        return credit
    if not await store.add_credit(conn, credit):
        return Rejected("rent_credit_id_reused", "Another rent credit has this rent_credit_id.")
    posted = await service.post_now(
        conn,
        TransferRequest(
            transfer_id=transfer_id,
            own_id=False,
            key=None,
            actor=actor,
            legs=(Leg(payer.id, -minutes), Leg(payee.id, minutes)),
            purpose="rent_credit",
        ),
        now,
    )
    if isinstance(posted, Rejected):
        return posted
    await tell(conn, credit, now)
    return credit


async def reverse(
    conn: Conn, actor: Actor, rent_credit_id: UUID, now: datetime
) -> RentCredit | Rejected:
    """Take a rent credit back, whole: the minutes return, and the rent is due again."""
    credit = await store.find_credit(conn, rent_credit_id)
    if credit is None:
        return NOT_FOUND
    await pledges_store.lock_members(conn, [credit.member_id])
    # Again, now that nobody else can take it back.
    credit = await store.find_credit(conn, rent_credit_id)
    if credit is None:
        return NOT_FOUND
    if refused := check_reversal(credit, actor):
        return refused
    original = await ledger_store.find_transfer(conn, credit.transfer_id)
    if original is None:
        raise LookupError(f"the transfer of rent credit {credit.id} is missing")
    back = await service.take_back_now(conn, original, actor, reversal_id=new_id(), now=now)
    if isinstance(back, Rejected):
        return back
    credit = replace(credit, reversed_by=back.id, reversed_at=now)
    await store.save_reversal(conn, credit)
    return credit


async def tell(conn: Conn, credit: RentCredit, now: datetime) -> None:
    await notices.tell(
        conn,
        member_id=credit.member_id,
        kind="rent_credit.made",
        subject={
            "rent_credit_id": credit.id,
            "organisation_id": credit.organisation_id,
            "month": credit.month,
            "minutes": credit.minutes,
            "credit_cents": credit.credit_cents,
        },
        now=now,
    )
