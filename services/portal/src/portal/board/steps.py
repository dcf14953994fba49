"""Which steps of an exchange a page offers to whom. The time bank decides; this only spares people
buttons that would be refused."""

from datetime import date

from portal.board.calls import Exchange, Party
from portal.session import Session


def acts_for(member: Session, exchange: Exchange, party: Party) -> bool:
    if party.kind == "member":
        return str(party.id) == member.member_id
    return member.has("steward") and member.city_id == exchange.city_id


def steps_of(member: Session, it: Exchange) -> set[str]:
    """The steps that the member may take now."""
    gives, receives = acts_for(member, it, it.giver), acts_for(member, it, it.receiver)
    owns = acts_for(member, it, it.owner)
    steps: set[str] = set()
    match it.status:
        case "requested":
            if owns:
                steps |= {"agree", "decline"}
            elif gives or receives:
                steps.add("cancel")
        case "agreed":
            if receives:
                steps.add("handed-over" if it.what == "lend" else "done")
            if gives or receives:
                steps.add("cancel")
        case "handed_over":
            if gives:
                steps.add("returned")
                if it.deposit_minutes:
                    steps.add("damaged")
        case "claimed":
            if receives:
                steps.add("accept")
            if gives:
                steps.add("returned")
            if member.has("mediator") and not (gives or receives):
                steps.add("rule")
    return steps


def waits_for(member: Session, it: Exchange, today: date) -> bool:
    """Whether the other side waits for the member, rather than for something to happen."""
    steps = steps_of(member, it)
    late = it.status == "handed_over" and it.until_on is not None and it.until_on < today
    return bool(steps & {"agree", "accept"}) or (late and acts_for(member, it, it.receiver))
