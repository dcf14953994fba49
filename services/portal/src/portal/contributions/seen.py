"""What a page offers somebody to do with a contribution. The time bank decides; this only spares
people buttons that would be refused."""

from dataclasses import dataclass

from portal.contributions.calls import Contribution
from portal.session import Session


@dataclass(frozen=True, slots=True)
class Offered:
    confirm: bool
    dispute: bool
    accept: bool
    edit: bool
    withdraw: bool
    rule: bool
    reverse: bool
    is_giver: bool


def seen_by(member: Session, it: Contribution) -> Offered:
    is_open = it.status in ("logged", "disputed")
    giver = str(it.giver_id) == member.member_id
    for_giver = giver or it.logged_by == member.member_id
    speaks = not for_giver and speaks_for_beneficiary(member, it)
    said = it.counter.written_by if it.counter else None
    party = for_giver or speaks_as_oneself(member, it) or said == member.member_id
    return Offered(
        confirm=is_open and speaks,
        dispute=is_open and speaks,
        accept=is_open and giver and it.counter is not None,
        edit=is_open and for_giver,
        withdraw=is_open and for_giver,
        rule=it.status == "disputed" and member.has("mediator") and not party,
        reverse=it.status == "confirmed"
        and member.has("steward")
        and not (giver or speaks_as_oneself(member, it)),
        is_giver=giver,
    )


def speaks_as_oneself(member: Session, it: Contribution) -> bool:
    return it.beneficiary.kind == "member" and str(it.beneficiary.id) == member.member_id


def speaks_for_beneficiary(member: Session, it: Contribution) -> bool:
    if member.city_id != it.city_id:
        return False
    match it.beneficiary.kind:
        case "member":
            return speaks_as_oneself(member, it) or member.has("steward")
        case "organisation":
            return member.has("steward", "operator")
        case "commons" | "outsider":
            return member.has("steward", "connector", "animator")
