"""Which rows of which tables are a city's.

A table with a `city_id` is divided by it, and one that is named here by what is said here. A table
of which nothing is known lets no city go: what it holds would be left behind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Of this database, not of its cities; or made anew from what is moved.
STAYING = frozenset(
    {
        "schema_migration", "inbox", "dead_letter", "outbox_log", "outbox_watermark", "unsettled",
        "standing_due", "city_move",
        # Sealed otherwise in a package: see package.py.
        "city_key",
        # Said again by those whose positions they are.
        "position_said",
    }
)  # fmt: skip


def of(parent: str, key: str, column: str | None = None) -> str:
    """The rows that belong to a row of a table with a city."""
    return f"{column or key} IN (SELECT {key} FROM {parent} WHERE city_id = $1)"  # noqa: S608 - names from below


# Members that rows of the city name; some may live in another city by now.
NAMED_MEMBERS = " UNION ".join(
    [
        "SELECT owner_id FROM account WHERE kind = 'member' AND city_id = $1",
        "SELECT giver_id FROM contribution WHERE city_id = $1",
        *(
            f"SELECT member_id FROM {table} WHERE city_id = $1"  # noqa: S608 - names from here
            for table in (
                "standing", "standing_history", "exemption", "pledge", "pledge_credit",
                "rent_credit", "solidarity_gift", "solidarity_request",
            )
        ),
    ]
)  # fmt: skip
RULES: Mapping[str, str] = {
    "account_limit": of("account", "account_id"),
    "log_account": of("account", "account_id"),
    "transfer_memo": of("transfer", "transfer_id"),
    "transfer_key": of("transfer", "transfer_id"),
    "contribution_version": of("contribution", "contribution_id"),
    "pledge_term": of("pledge", "pledge_id"),
    "solidarity_reason": of("solidarity_request", "request_id"),
    "exemption": "(city_id = $1 OR exemption_id IN"
    " (SELECT exemption_id FROM standing_history WHERE city_id = $1))",
    "exemption_reason": "exemption_id IN (SELECT exemption_id FROM exemption WHERE city_id = $1"
    " UNION SELECT exemption_id FROM standing_history WHERE city_id = $1)",
    "member": f"(city_id = $1 OR member_id IN ({NAMED_MEMBERS}))",
    "place": "(city_id = $1 OR place_id IN (SELECT place_id FROM listing WHERE city_id = $1)"
    " OR place_id IN (SELECT place_id FROM contribution_version JOIN contribution"
    " USING (contribution_id) WHERE contribution.city_id = $1))",
    # What the city cosigned of others, not what others did of it.
    "log_seen": "cosigner = $1",
    # The keys of others are needed to believe them.
    "peer_city": "$1::text IS NOT NULL",
    "key_handover": "$1::text IS NOT NULL",
    # What it told, so that whoever loses it can be told again.
    "outbox": "(payload ->> 'city_id' = $1 AND NOT payload ? 'cosigner'"
    " OR payload ->> 'cosigner' = $1 OR payload ->> 'from_city' = $1)",
    # So that what its members sent is not done again when they send it again.
    "idempotency": "split_part(scope, ':', 1) IN"
    " (SELECT member_id::text FROM member WHERE city_id = $1)",
}

# Of rows that another time bank may have as well: which stays when both do.
MERGED: Mapping[str, str] = {
    "book": "(city_id) DO UPDATE SET status = EXCLUDED.status,"
    " city_version = EXCLUDED.city_version, timezone = EXCLUDED.timezone,"
    " member_floor_minutes = EXCLUDED.member_floor_minutes, opened_at = EXCLUDED.opened_at,"
    " place = EXCLUDED.place WHERE book.place = 'elsewhere'",
    "member": "(member_id) DO UPDATE SET city_id = EXCLUDED.city_id, status = EXCLUDED.status,"
    " version = EXCLUDED.version WHERE member.version < EXCLUDED.version",
    "standing": "(member_id) DO UPDATE SET city_id = EXCLUDED.city_id,"
    " standing = EXCLUDED.standing, version = EXCLUDED.version"
    " WHERE standing.version < EXCLUDED.version",
    "standing_history": "DO NOTHING",
    "exemption": "DO NOTHING",
    "exemption_reason": "DO NOTHING",
    "place": "(place_id) DO UPDATE SET version = EXCLUDED.version, city_id = EXCLUDED.city_id,"
    " status = EXCLUDED.status WHERE place.version < EXCLUDED.version",
    "peer_city": "(city_id) DO UPDATE SET public_key = EXCLUDED.public_key,"
    " version = EXCLUDED.version WHERE peer_city.version < EXCLUDED.version",
    "key_handover": "DO NOTHING",
    "outbox": "(event_id) DO NOTHING",
    "idempotency": "DO NOTHING",
}
# In the order in which they are to be told again.
ORDER: Mapping[str, str] = {
    "outbox": "id",
    "posting": "account_id, account_version",
    "audit_look": "number",
}


# What triggers look at, where no foreign key says so.
LOOKS_AT = (
    ("posting", "transfer"),
    ("posting", "account"),
    ("pledge_credit", "posting"),
    ("pledge_credit", "contribution"),
    ("pledge_credit", "pledge_term"),
)


class UnknownTable(Exception):
    """A table holds something, and nobody said whose it is."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a city has rows in: all columns that are not computed, and which rows."""

    name: str
    columns: tuple[str, ...]
    rule: str

    @property
    def names(self) -> str:
        return ", ".join(f'"{column}"' for column in self.columns)

    @property
    def select(self) -> str:
        return f'SELECT {self.names} FROM "{self.name}"'  # noqa: S608 - names of the catalogue

    @property
    def query(self) -> str:
        """The rows of the city $1."""
        order = f" ORDER BY {ORDER[self.name]}" if self.name in ORDER else ""
        return f"{self.select} WHERE {self.rule}{order}"


def to_table(name: str, columns: Sequence[str]) -> Table | None:
    """How a table is divided; None for what stays. Raises UnknownTable."""
    if name in STAYING:
        return None
    rule = RULES.get(name)
    if rule is None and "city_id" in columns:
        rule = "city_id = $1"
    if rule is None:
        raise UnknownTable(f"nothing says which rows of {name} are a city's")
    return Table(name, tuple(columns), rule)


def in_order(names: Sequence[str], refers: Sequence[tuple[str, str]]) -> list[str]:
    """The tables, each after those that it refers to. `refers`: (from, to).

    Raises UnknownTable when they refer to each other in a circle.
    """
    waits = {name: {to for of, to in refers if of == name and to != name} for name in names}
    ordered: list[str] = []
    while waits:
        ready = sorted(name for name, on in waits.items() if not on & waits.keys())
        if not ready:
            raise UnknownTable(f"tables refer to each other: {', '.join(sorted(waits))}")
        ordered += ready
        for name in ready:
            del waits[name]
    return ordered
