"""Many entries at once: most are plain transfers between two accounts with nothing unusual.

For those one regular expression reads the whole canonical form, and for the parts of transfers
between cities another. Such an entry is right by itself; it comes as a row, and what is left is
to look at it beside the others. Whatever is not surely right goes to `Book.add`, which takes it in
as if there were nothing else, and names what is wrong; this here never judges.
"""

import re
from collections.abc import Iterator
from datetime import date

from copass_verify.entries import STEPS, Book, Crossing, Step, WrongEntry, read_time

# What comes of an entry that is more than plain: its number, and what it is.
Noted = tuple[int, Crossing | WrongEntry]
# An account of nobody: what it is, and with which city.
Nobody = tuple[str, str | None]
# id, step, peer, minutes, posted_at in epoch seconds
Part = tuple[str, Step, str, int, float]
# The two lines' account, floor, what it is; the first one's minutes, the second has the opposite;
# the transfer; the part of a transfer between cities.
Row = tuple[
    bytes, int | None, Nobody | None, int, bytes, int | None, Nobody | None, bytes, Part | None
]

HEX4, HEX12 = "[0-9a-f]{4}", "[0-9a-f]{12}"
UUID = f"[0-9a-f]{{8}}-{HEX4}-{HEX4}-{HEX4}-{HEX12}"
NUMBER = "[1-9][0-9]{0,14}"
INDEX = "0|[1-9][0-9]{0,17}"
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
# These say more than their lines.
OTHER_KINDS = "|".join(sorted({*STEPS, "reversal", "netting"}))


def line_of(kinds: str, minutes: str, peer: str = "") -> str:
    """One line of an entry. Accounts are named in order, so either line may be the one that gives;
    both have the same minutes with opposite signs, so they sum to zero."""
    return (
        rf'\{{"account":"([0-9a-f]{{32}})",(?:"floor":(0|-?{NUMBER}),|)(?:"is":"({kinds})",|)'
        rf'"minutes":{minutes}{peer}\}}'
    )


def compile_plain(city: str) -> re.Pattern[bytes]:
    """A plain entry of this city in its groups, or any other line with all of them empty."""
    first = line_of("commons|solidarity_fund", rf"(-)?({NUMBER})")
    second = line_of("commons|solidarity_fund", r"(?(5)|-)\6")
    entry = (
        rf'\{{"city":"{city}","index":({INDEX}),"kind":"(?!(?:{OTHER_KINDS})")'
        rf'[a-z_]{{1,40}}","lines":\[{first},{second}\],"posted_at":"([^"\n]{{10}})T{TIME}'
        rf'\.[0-9]{{6}}\+00:00","transfer":"({UUID})","version":1\}}\n|[^\n]*\n'
    )
    return re.compile(entry.encode("ascii"))


def compile_crossing(city: str) -> re.Pattern[bytes]:
    """A part of a transfer between cities, between two accounts, in its groups."""
    line = line_of("in_transit|clearing", r"(-?)\2", r'(?:,"peer":"(\3)"|)')
    entry = (
        rf'\{{"city":"{city}","clearing":\{{"id":"({UUID})","minutes":({NUMBER}),"peer":'
        rf'"([a-z][a-z0-9-]{{1,39}})","step":"(departure|settlement|return|arrival)"\}},"index":'
        rf'({INDEX}),"kind":"\4","lines":\[{line},{line}\],'
        rf'"posted_at":"([^"\n]{{10}}T{TIME}\.[0-9]{{6}}\+00:00)","transfer":"({UUID})",'
        r'"version":1\}'
    )
    return re.compile(entry.encode("ascii"))


# What the giver and the taker of each part are.
PARTS: dict[bytes, tuple[Step, bytes | None, bytes | None]] = {
    b"departure": ("departure", None, b"in_transit"),
    b"settlement": ("settlement", b"in_transit", b"clearing"),
    b"return": ("return", b"in_transit", None),
    b"arrival": ("arrival", b"clearing", None),
}


class Reader:
    """Reads lines into rows. It knows nothing but the city, so it may run anywhere."""

    def __init__(self, city: str) -> None:
        self.plain = compile_plain(city)
        self.crossing = compile_crossing(city)
        # Days that there are in the calendar.
        self.days: set[bytes] = set()

    def read(self, begin: int, text: bytes) -> list[Row | None]:
        """A row for each line, from entry `begin` on; None when it is not surely right."""
        found = self.plain.findall(text)
        self.learn({row[9] for row in found})
        days = self.days
        nobody: dict[bytes, Nobody | None] = {
            b"": None,
            b"commons": ("commons", None),
            b"solidarity_fund": ("solidarity_fund", None),
        }
        rows: list[Row | None] = [
            (
                one,
                int(one_floor) if one_floor else None,
                nobody[one_is],
                -int(digits) if gives else int(digits),
                other,
                int(other_floor) if other_floor else None,
                nobody[other_is],
                transfer,
                None,
            )
            if day in days and int(number) == index
            else None
            for index, (
                number, one, one_floor, one_is, gives, digits, other, other_floor, other_is, day,
                transfer,
            ) in enumerate(found, begin)
        ]  # fmt: skip
        if None in rows:
            for place, line in enumerate(text.split(b"\n")[:-1]):
                if rows[place] is None and line.startswith(b'{"city":"'):
                    rows[place] = self.read_crossing(begin + place, line)
        return rows

    def read_crossing(self, index: int, line: bytes) -> Row | None:
        found = self.crossing.fullmatch(line)
        if found is None:
            return None
        crossing_id, digits, peer, step, number = found.group(1, 2, 3, 4, 5)
        one, one_floor, one_is, sign, one_peer = found.group(6, 7, 8, 9, 10)
        other, other_floor, other_is, other_sign, other_peer = found.group(11, 12, 13, 14, 15)
        posted_at, transfer = found.group(16, 17)
        named, *expected = PARTS[step]
        givers = [one_is, other_is] if sign else [other_is, one_is]
        self.learn({posted_at[:10]})
        if (
            givers != expected
            or sign == other_sign
            or (one_is is None) != (one_peer is None)
            or (other_is is None) != (other_peer is None)
            or posted_at[:10] not in self.days
            or int(number) != index
        ):
            return None
        minutes, city = int(digits), peer.decode()
        return (
            one,
            int(one_floor) if one_floor else None,
            (one_is.decode(), city) if one_is else None,
            -minutes if sign else minutes,
            other,
            int(other_floor) if other_floor else None,
            (other_is.decode(), city) if other_is else None,
            transfer,
            (crossing_id.decode(), named, city, minutes, read_time(posted_at.decode())),
        )

    def learn(self, days: set[bytes]) -> None:
        """Keep those that the calendar has."""
        for day in days - self.days:
            try:
                date.fromisoformat(day.decode("ascii"))
            except ValueError:
                continue
            self.days.add(day)


class Runs:
    """Takes parts of whole lines into a book."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def take(self, text: bytes, rows: list[Row | None]) -> Iterator[Noted]:
        """Take in what follows; each entry that is part of a clearing, or wrong, in order."""
        begin = 0
        lines = Lines(text, self.book.size)
        for place, row in enumerate(rows):
            if row is None:
                yield from self.take_run(rows[begin:place], lines)
                yield from self.take_one(lines)
                begin = place + 1
        yield from self.take_run(rows[begin:], lines)

    def take_one(self, lines: "Lines") -> Iterator[Noted]:
        index = self.book.size
        try:
            crossing = self.book.add(lines.at(index))
        except WrongEntry as error:
            yield index, error
            return
        if crossing:
            yield index, crossing

    def take_run(self, rows: list[Row | None], lines: "Lines") -> Iterator[Noted]:
        """Entries that are right by themselves and follow each other."""
        book = self.book
        begin, end = book.size, book.size + len(rows)
        transfers = {row[7] for row in rows if row}
        if len(transfers) != len(rows) or not book.transfers.isdisjoint(transfers):
            for _ in rows:
                yield from self.take_one(lines)
            return
        balances, of_nobody = book.balances, book.of_nobody
        for index, row in enumerate(rows, begin):
            if row is None:
                continue
            one, one_floor, one_is, minutes, other, other_floor, other_is, transfer, part = row
            one_after = balances.get(one, 0) + minutes
            other_after = balances.get(other, 0) - minutes
            if (
                of_nobody.get(one) != one_is
                or of_nobody.get(other) != other_is
                or (one_floor is not None and one_after < one_floor)
                or (other_floor is not None and other_after < other_floor)
                or one == other
            ):
                book.size = index
                yield from self.take_one(lines)
                if transfer not in book.transfers:
                    transfers.discard(transfer)
                continue
            balances[one] = one_after
            balances[other] = other_after
            if part:
                crossing_id, step, peer, moved, posted_at = part
                told = transfer.decode()
                yield index, Crossing(crossing_id, step, peer, moved, index, told, posted_at)
        book.size = end
        book.transfers |= transfers


class Lines:
    """The lines of a part, cut apart only when one of them is asked for."""

    def __init__(self, text: bytes, first: int) -> None:
        self.text = text
        self.first = first
        self.cut: list[bytes] = []

    def at(self, index: int) -> bytes:
        """Entry `index`, without its end."""
        if not self.cut:
            self.cut = self.text.split(b"\n")
        return self.cut[index - self.first]
