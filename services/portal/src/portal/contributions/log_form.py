"""The short form with which hours are logged, and the same for changing what was logged."""

from datetime import date, timedelta
from typing import Any
from uuid import UUID

from common.ids import new_id
from portal.contributions import calls
from portal.forms import Form, as_day, as_minutes, as_uuid, typed
from portal.people import Person, find_person
from portal.views import Place
from portal.visit import Visit

LOG_FIELDS = (
    "contribution_id",
    "minutes",
    "own",
    "activity",
    "performed_on",
    "whom",
    "person",
    "person_id",
    "place_id",
    "note",
)
QUICK_MINUTES = (30, 60, 90, 120)
DAY_MINUTES = 1440
DAYS_BACK_MAX = 366
NOTE_CHARS_MAX = 2000
PLACES_MAX = 100


def empty_log(day: date, activity: str) -> Form:
    """One hour, today, for the commons: sent as it is, it is right more often than not."""
    return Form(
        {
            "contribution_id": str(new_id()),
            "minutes": "60",
            "activity": activity,
            "performed_on": day.isoformat(),
            "whom": "commons",
        }
    )


def form_of(contribution: calls.Contribution) -> Form:
    """The form with what was logged."""
    minutes = str(contribution.minutes)
    quick = contribution.minutes in QUICK_MINUTES
    return Form(
        {
            "minutes": minutes if quick else "",
            "own": "" if quick else typed(contribution.minutes),
            "activity": contribution.activity,
            "performed_on": contribution.performed_on.isoformat(),
            "place_id": str(contribution.place_id or ""),
            "note": contribution.note or "",
        }
    )


async def last_activity(visit: Visit) -> str:
    """What the member did last: people mostly do again what they did before."""
    member = visit.member()
    page = await visit.part(
        calls.listed(
            visit.network, member.access_token, member_id=member.member_id, role="giver", limit=1
        )
    )
    return page.items[0].activity if page and page.items else "other"


async def places_here(visit: Visit) -> list[Place]:
    """The places of the visitor's city; none when they cannot be had."""
    city = visit.member().city_id
    if city is None:
        return []
    page = await visit.part(visit.network.places(city=city, limit=PLACES_MAX))
    return page.items if page else []


def claim_of(form: Form, today: date) -> dict[str, Any] | None:
    """How long, what, when, where; or None, and the fields are marked."""
    if form["own"]:
        minutes = form.read("own", as_minutes, "form.bad_minutes")
        if minutes is not None and minutes > DAY_MINUTES:
            form.wrong("own", "log.a_day")
    else:
        minutes = as_minutes(form["minutes"])
        if minutes not in QUICK_MINUTES:
            form.wrong("own", "form.bad_minutes")
    activity = form.choice("activity", calls.ACTIVITIES)
    day = form.read("performed_on", as_day, "form.bad_day")
    if day is not None and not today - timedelta(days=DAYS_BACK_MAX) <= day <= today:
        form.wrong("performed_on", "log.bad_day")
    place = form.optional("place_id", as_uuid, "form.choose")
    note = form.text("note", NOTE_CHARS_MAX)
    if form.errors or day is None:
        return None
    claim: dict[str, Any] = {
        "minutes": minutes,
        "activity": activity,
        "performed_on": day.isoformat(),
    }
    return {
        **claim,
        **({"place_id": str(place)} if place else {}),
        **({"note": note} if note else {}),
    }


async def read_log(
    visit: Visit, form: Form, today: date
) -> tuple[dict[str, Any] | None, list[Person] | None]:
    """The form as a contribution, or None; and whom a name may mean, where that must be asked."""
    contribution_id = as_uuid(form["contribution_id"]) or new_id()
    claim = claim_of(form, today)
    choices: list[Person] | None = None
    to: dict[str, Any] = {"kind": form.choice("whom", ("commons", "member", "outsider"))}
    # A name that was typed is meant, whether or not the choice beside it was made.
    if form["person"] or form["whom"] == "member":
        form.values["whom"] = "member"
        person: UUID | None = None
        if form["person"]:
            match = await find_person(visit, form["person"], as_uuid(form["person_id"]))
            person = match.person.member_id if match.person else None
            choices = match.choices if person is None else None
            if person is None:
                form.wrong("person", "person.several" if choices else "person.nobody")
        else:
            form.wrong("person", "log.whom")
        to = {"kind": "member", "id": str(person)}
    if claim is None or form.errors:
        return None, choices
    return {
        "contribution_id": str(contribution_id),
        "giver_id": visit.member().member_id,
        "beneficiary": to,
        **claim,
    }, None
