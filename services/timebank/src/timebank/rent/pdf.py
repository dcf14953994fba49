"""A rent statement for paper. Imported when one is asked for: the library costs 30 MiB."""

from datetime import datetime

from fpdf.enums import XPos, YPos

from timebank.rent.documents import euros
from timebank.rent.domain import RentStatement
from timebank.statements.documents import hours
from timebank.statements.pdf import Page

WIDTHS = (30, 76, 24, 30, 30)
HEADS = ("Date (UTC)", "Membre / member", "Temps / time", "EUR / h", "EUR")


def to_pdf(statement: RentStatement, made_at: datetime) -> bytes:
    """A4 pages in French and English words. Not for the event loop."""
    with Page() as page:
        write(page, statement, made_at)
        return bytes(page.output())


def write(page: Page, statement: RentStatement, made_at: datetime) -> None:
    page.set_title("Loyer payé en temps / Rent paid in time")
    page.set_creation_date(made_at)
    page.add_page()
    page.set_font("Noto", size=15)
    page.cell(0, 9, "Loyer payé en temps / Rent paid in time", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.set_font("Noto", size=10)
    for text in (
        f"{statement.city_id} · {statement.organisation_id}",
        f"{statement.month:%Y-%m}",
        f"Total : {hours(statement.minutes)}, {euros(statement.credit_cents)} EUR",
    ):
        page.cell(0, 6, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.ln(4)
    page.set_font("Noto", size=9)
    for width, head in zip(WIDTHS, HEADS, strict=True):
        page.cell(width, 7, head, border="B", align="L" if head in HEADS[:2] else "R")
    page.ln()
    page.set_font("Noto", size=8)
    for line in statement.lines:
        amount = "annulé / reversed" if line.reversed else euros(line.credit_cents)
        cells = (
            f"{line.made_at:%Y-%m-%d %H:%M}",
            str(line.member_id),
            hours(line.minutes),
            euros(line.cents_per_hour),
            amount,
        )
        for width, head, text in zip(WIDTHS, HEADS, cells, strict=True):
            page.cell(width, 6, text, align="L" if head in HEADS[:2] else "R")
        page.ln()
