"""The form of a listing, and the form with which somebody asks for it."""

import re
from datetime import date
from typing import Any

from common.ids import new_id
from portal.board import calls
from portal.board.where import find_where
from portal.forms import Form, as_day, as_minutes_or_none, typed
from portal.skills import as_skills, skill_words
from portal.visit import Visit

WEEK = range(7)
# A browser's field of a time knows no 24:00.
LAST_MINUTE = "23:59"
SLOT_FIELDS = tuple(f"{edge}_{day}" for day in WEEK for edge in ("from", "until"))
FIELDS = (
    "once",
    "kind",
    "what",
    "title",
    "text",
    "category",
    "skills",
    "where",
    "schedule",
    "price",
    "deposit",
    "quantity",
    "available_until",
    "visibility",
    *SLOT_FIELDS,
)
ASK_FIELDS = ("once", "message", "minutes", "quantity", "from", "until")
TITLE_CHARS_MAX = 200
TEXT_CHARS_MAX = 2000
SKILLS_MAX = 10
PRICE_MINUTES_MAX = 1440
DEPOSIT_MINUTES_MAX = 6000
QUANTITY_MAX = 1000


def as_count(text: str) -> int | None:
    """1 to 1000."""
    count = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else 0
    return count if 1 <= count <= QUANTITY_MAX else None


def as_clock(text: str) -> str | None:
    """`14:00`, as browsers send a time."""
    found = re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text)
    return found.group() if found else None


def form_of(listing: calls.Listing, place: str) -> Form:
    """The form with what is listed. `place`: its name, when it is at one."""
    where = place
    if not where and listing.latitude is not None and listing.longitude is not None:
        where = f"{listing.latitude} {listing.longitude}"
    values = {
        "once": str(new_id()),
        "kind": listing.kind,
        "what": listing.what,
        "title": listing.title or "",
        "text": listing.text or "",
        "category": listing.category,
        "skills": ", ".join(skill_words(skill) for skill in listing.skills),
        "where": where,
        "schedule": listing.schedule.text or "",
        "price": typed(listing.price_minutes),
        "deposit": typed(listing.deposit_minutes),
        "quantity": str(listing.quantity or ""),
        "available_until": listing.available_until.isoformat() if listing.available_until else "",
        "visibility": listing.visibility,
    }
    for slot in listing.schedule.slots:
        until = LAST_MINUTE if slot.until == "24:00" else slot.until
        values |= {f"from_{slot.weekday}": slot.from_, f"until_{slot.weekday}": until}
    return Form(values)


async def read_listing(
    visit: Visit, form: Form, before: calls.Listing | None
) -> dict[str, Any] | None:
    """The form as the time bank takes it, or None, and the fields are marked.

    `before`: the listing that is changed. Raises Unavailable when the register of places is asked
    and away.
    """
    what = form.choice("what", calls.WHATS)
    form.choice("kind", calls.KINDS)
    title = form.text("title", TITLE_CHARS_MAX)
    if not title:
        form.wrong("title", "listing.no_title")
    body: dict[str, Any] = {
        "title": title,
        "text": form.text("text", TEXT_CHARS_MAX) or None,
        "category": form.choice("category", calls.CATEGORIES),
        "skills": read_skills(form),
        "price_minutes": read_minutes(form, "price", PRICE_MINUTES_MAX),
        "available_until": None,
        "visibility": form.choice("visibility", ("city", "federation")),
        "schedule": {
            "text": form.text("schedule", TITLE_CHARS_MAX) or None,
            "slots": read_slots(form, before),
        },
        "place_id": None,
        "latitude": None,
        "longitude": None,
    }
    if last := form.optional("available_until", as_day, "form.bad_day"):
        body["available_until"] = last.isoformat()
    if what == "lend":
        body["deposit_minutes"] = read_minutes(form, "deposit", DEPOSIT_MINUTES_MAX)
    if what == "surplus":
        form.values["quantity"] = form["quantity"] or "1"
        body["quantity"] = form.read("quantity", as_count, "listing.bad_quantity")
    if form["where"]:
        where = await find_where(visit, form["where"])
        if where is None:
            form.wrong("where", "board.nowhere")
        else:
            body |= {
                "place_id": str(where.place_id) if where.place_id else None,
                "latitude": where.latitude,
                "longitude": where.longitude,
            }
    if form.errors:
        return None
    return body if before else {"kind": form["kind"], "what": what, **body}


def read_skills(form: Form) -> list[str]:
    skills = form.read("skills", as_skills, "form.bad_skills") or []
    if len(skills) > SKILLS_MAX:
        form.wrong("skills", "form.bad_skills")
    return skills


def read_minutes(form: Form, name: str, minutes_max: int) -> int:
    """Minutes, nothing typed is none."""
    minutes = form.optional(name, as_minutes_or_none, "form.bad_minutes") or 0
    if minutes > minutes_max:
        form.wrong(name, "listing.too_much")
    return minutes


def read_slots(form: Form, before: calls.Listing | None) -> list[dict[str, Any]]:
    """The weekly hours, one a day; those that the form could not show stay."""
    if before:
        days = [slot.weekday for slot in before.schedule.slots]
        if len(set(days)) < len(days):
            return [
                {"weekday": slot.weekday, "from": slot.from_, "until": slot.until}
                for slot in before.schedule.slots
            ]
    slots = []
    for day in WEEK:
        start, end = form[f"from_{day}"], form[f"until_{day}"]
        if not start and not end:
            continue
        if not as_clock(start) or not as_clock(end) or start >= end:
            form.wrong("slots", "listing.bad_slot")
        until = "24:00" if end == LAST_MINUTE else end
        slots.append({"weekday": day, "from": start, "until": until})
    return slots


def read_ask(form: Form, listing: calls.Listing, today: date) -> dict[str, Any] | None:
    """What somebody asks for, or None, and the fields are marked."""
    body: dict[str, Any] = {}
    if message := form.text("message", TEXT_CHARS_MAX):
        body["message"] = message
    if form["minutes"]:
        body["minutes"] = read_minutes(form, "minutes", PRICE_MINUTES_MAX)
    if listing.what == "surplus":
        quantity = form.optional("quantity", as_count, "listing.bad_quantity")
        if quantity is not None:
            body["quantity"] = quantity
    if listing.what == "lend":
        first = form.read("from", as_day, "form.bad_day")
        last = form.read("until", as_day, "form.bad_day")
        if first and first < today:
            form.wrong("from", "exchange.past")
        if first and last and last < first:
            form.wrong("until", "exchange.before")
        if first and last:
            body |= {"from": first.isoformat(), "until": last.isoformat()}
    return None if form.errors else body
