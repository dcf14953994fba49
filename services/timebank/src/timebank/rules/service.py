"""What happens to a city's rules: one transaction; lock the book, decide, save."""

from dataclasses import replace
from datetime import datetime

from common.db import Conn
from timebank.domain import Actor, Rejected
from timebank.rules import store
from timebank.rules.domain import Rules
from timebank.standings import store as standings_store


async def set_rules(conn: Conn, actor: Actor, wanted: Rules, now: datetime) -> Rules | Rejected:
    """Set a city's rules; those of before are kept. Standings are judged by the new ones at once,
    by the worker; accounts that are open keep their floors."""
    if not actor.is_steward_of(wanted.city_id):
        if actor.may_know_of(wanted.city_id):
            return Rejected("forbidden", "Only a steward of the city sets its rules.")
        return Rejected("not_found", "There is no such city.")
    if not await store.lock_book(conn, wanted.city_id):
        return Rejected("not_found", "There is no such city.")
    known = await store.find_rules(conn, wanted.city_id)
    rules = replace(wanted, number=known.number + 1, set_by=actor.id, set_at=now)
    await store.add_rules(conn, rules)
    await standings_store.expect_all_of(conn, rules.city_id, now)
    return rules
