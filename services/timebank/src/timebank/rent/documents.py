"""An operator's rent statement as a file: CSV for the accounts (pdf.py: for paper)."""

import csv
import io

from timebank.rent.domain import RentStatement

COLUMNS = (
    "made_at",
    "rent_credit_id",
    "member_id",
    "minutes",
    "cents_per_hour",
    "credit_cents",
    "status",
)


def to_csv(statement: RentStatement) -> bytes:
    """UTF-8 with a byte order mark, plain integers, and a last line with the sums of what stands.

    No cell is anybody's text: ids, numbers and instants alone.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for line in statement.lines:
        writer.writerow(
            (
                line.made_at.isoformat(),
                line.id,
                line.member_id,
                line.minutes,
                line.cents_per_hour,
                line.credit_cents,
                "reversed" if line.reversed else "made",
            )
        )
    writer.writerow(("total", "", "", statement.minutes, "", statement.credit_cents, ""))
    return out.getvalue().encode("utf-8-sig")


def euros(cents: int) -> str:
    """`1234,05`: as French accounts write it."""
    return f"{cents // 100},{cents % 100:02}"
