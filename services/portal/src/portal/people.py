"""Who is who, as far as each person lets the visitor know: names, and finding somebody by name."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from markupsafe import Markup

from portal.forms import as_uuid
from portal.network import Refused, Unavailable, fit_all
from portal.views import View
from portal.visit import Visit

NAMES_AT_ONCE = 100
FOUND_MAX = 20
SUGGESTED_MAX = 100


class Person(View):
    member_id: UUID
    city_id: str | None = None
    display_name: str


@dataclass(frozen=True, slots=True)
class Names:
    """How to call people, in the language of the page. `known` is what the visitor may see."""

    visit: Visit
    known: dict[UUID, str]

    def __call__(self, member_id: UUID | None) -> str | Markup:
        """The name; "you" for the visitor; "a member" for whom they may not see."""
        if member_id is not None and str(member_id) == self.visit.member().member_id:
            return self.visit.t("person.you")
        name = self.known.get(member_id) if member_id else None
        return name or self.visit.t("person.unknown")

    def of(self, author: str) -> str | Markup:
        """As above, of whoever wrote something: a member's id, or the name of a service."""
        return self(as_uuid(author))


async def names_of(visit: Visit, ids: Iterable[UUID | None]) -> Names:
    """The names of these members; without identity, and of the hidden, nothing."""
    member = visit.member()
    wanted = sorted({i for i in ids if i is not None and str(i) != member.member_id})
    known: dict[UUID, str] = {}
    for start in range(0, len(wanted), NAMES_AT_ONCE):
        some = wanted[start : start + NAMES_AT_ONCE]
        body = {"member_ids": [str(member_id) for member_id in some]}
        try:
            answer = await visit.network.call(
                "identity", "POST", "/v1/names", token=member.access_token, json=body
            )
            known |= {p.member_id: p.display_name for p in fit_all("identity", Person, answer)}
        except Unavailable:
            break
        except Refused as refused:
            if refused.status == 401:
                raise
            break
    return Names(visit, known)


async def directory(
    visit: Visit, text: str, limit: int, city_id: str | None = None
) -> list[Person]:
    """The people of a city, else of the visitor's, whom they may find, but themselves.

    Raises as calls do.
    """
    member = visit.member()
    params = {"limit": str(limit)}
    if city := city_id or member.city_id:
        params["city_id"] = city
    if text:
        params["q"] = text[:100]
    answer = await visit.network.call(
        "identity", "GET", "/v1/directory", token=member.access_token, params=params
    )
    found = fit_all("identity", Person, answer)
    return [person for person in found if str(person.member_id) != member.member_id]


async def suggested_names(visit: Visit) -> list[str]:
    """Names for the browser to complete; none when identity does not answer: one can still type."""
    try:
        return [person.display_name for person in await directory(visit, "", SUGGESTED_MAX)]
    except Unavailable:
        return []
    except Refused as refused:
        if refused.status == 401:
            raise
        return []


@dataclass(frozen=True, slots=True)
class Match:
    """Whom a typed name means: one person, or several to choose from (none: nobody found)."""

    person: Person | None
    choices: list[Person]


async def find_person(
    visit: Visit, text: str, chosen: UUID | None, city_id: str | None = None
) -> Match:
    """Who is meant by a name, or by the choice made on the page before.

    They are of the visitor's city, or of the one that is named.

    Only a whole name that one person has is taken at its word; of anything else the visitor is
    asked, because minutes given to the wrong person are hard to get back.
    """
    found = await directory(visit, text, FOUND_MAX, city_id)
    if chosen is not None:
        return Match(next((p for p in found if p.member_id == chosen), None), found)
    same = [person for person in found if folded(person.display_name) == folded(text)]
    return Match(same[0], found) if len(same) == 1 else Match(None, same or found)


def folded(text: str) -> str:
    """Without case, accents and doubled spaces."""
    plain = unicodedata.normalize("NFKD", text)
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).casefold().split())


async def today(visit: Visit) -> date:
    """The day that it is in the visitor's city."""
    member = visit.member()
    zone = await visit.portal.zones.of(member.access_token, member.city_id)
    return visit.now.astimezone(zone).date()
