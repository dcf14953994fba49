"""Many entries at once: most are plain transfers between two accounts with nothing unusual.

For those one regular expression reads the whole canonical form, and what is left to look at is
whether balances stay above their floors. Whatever is not surely right goes to `Book.add`, which
takes it in as if there were nothing else, and names what is wrong; this here never judges.
"""

import re
from collections.abc import Iterator
from datetime import date

from copass_verify.entries import Book, Crossing, WrongEntry

# What comes of an entry that is more than plain: its number, its line, and what it is.
Noted = tuple[int, bytes, Crossing | WrongEntry]

HEX4, HEX12 = "[0-9a-f]{4}", "[0-9a-f]{12}"
NUMBER = "[1-9][0-9]{0,14}"
# Accounts are named in order, so either line may be the one that gives; the second has the same
# minutes with the other sign, so they sum to zero.
LINE = (
    r'\{{"account":"([0-9a-f]{{32}})",(?:"floor":(0|-?{number}),)?'
    r'(?:"is":"(commons|solidarity_fund)",)?"minutes":{minutes}\}}'
)
FIRST = LINE.format(number=NUMBER, minutes=rf"(-)?({NUMBER})")
SECOND = LINE.format(number=NUMBER, minutes=r"(?(6)|-)\7")
CROSSES = "departure|settlement|return|arrival|reversal"
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
UUID = f"[0-9a-f]{{8}}-{HEX4}-{HEX4}-{HEX4}-{HEX12}"


def compile_plain(city: str) -> re.Pattern[bytes]:
    """Either a plain entry of this city in its groups 1 to 12, or any other line in the last."""
    entry = (
        rf'(\{{"city":"{city}","index":(0|[1-9][0-9]{{0,17}}),"kind":"(?!(?:{CROSSES})")'
        rf'[a-z_]{{1,40}}","lines":\[{FIRST},{SECOND}\],"posted_at":"([^"\n]{{10}})T{TIME}'
        rf'\.[0-9]{{6}}\+00:00","transfer":"({UUID})","version":1\}})\n|([^\n]*)\n'
    )
    return re.compile(entry.encode("ascii"))


class Runs:
    """Takes parts of whole lines into a book."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.plain = compile_plain(book.city)
        # Days that there are in the calendar.
        self.days: set[bytes] = set()

    def take(self, text: bytes) -> Iterator[Noted]:
        """Take in what follows; each entry that is part of a clearing, or wrong, in order."""
        begin = 0
        rows = self.plain.findall(text)
        for place, row in enumerate(rows):
            if not row[1]:
                yield from self.take_run(rows[begin:place])
                yield from self.take_one(row[12])
                begin = place + 1
        yield from self.take_run(rows[begin:] if begin else rows)

    def take_one(self, line: bytes) -> Iterator[Noted]:
        index = self.book.size
        try:
            crossing = self.book.add(line)
        except WrongEntry as error:
            yield index, line, error
            return
        if crossing:
            yield index, line, crossing

    def take_run(self, rows: list[tuple[bytes, ...]]) -> Iterator[Noted]:
        """Plain entries that follow each other."""
        book = self.book
        begin = book.size
        transfers = {row[11] for row in rows}
        if (
            [int(row[1]) for row in rows] != list(range(begin, begin + len(rows)))
            or len(transfers) != len(rows)
            or not book.transfers.isdisjoint(transfers)
            or not self.are_days({row[10] for row in rows})
        ):
            for row in rows:
                yield from self.take_one(row[0])
            return
        balances, of_nobody = book.balances, book.of_nobody
        for index, row in enumerate(rows, begin):
            _, _, one, one_floor, one_is, gives, digits, other, other_floor, other_is, _, _, _ = row
            minutes = -int(digits) if gives else int(digits)
            one_after = balances.get(one, 0) + minutes
            other_after = balances.get(other, 0) - minutes
            if (
                (of_nobody.get(one) != (one_is.decode(), None) if one_is else one in of_nobody)
                or (
                    of_nobody.get(other) != (other_is.decode(), None)
                    if other_is
                    else other in of_nobody
                )
                or (one_floor and one_after < int(one_floor))
                or (other_floor and other_after < int(other_floor))
                or one == other
            ):
                book.size = index
                yield from self.take_one(row[0])
                if row[11] not in book.transfers:
                    transfers.discard(row[11])
            else:
                balances[one] = one_after
                balances[other] = other_after
        book.size = begin + len(rows)
        book.transfers |= transfers

    def are_days(self, days: set[bytes]) -> bool:
        """Whether the calendar has them."""
        for day in days - self.days:
            try:
                date.fromisoformat(day.decode("ascii"))
            except ValueError:
                return False
            self.days.add(day)
        return True
