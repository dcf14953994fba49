"""A statement for paper. Imported when one is asked for: the library costs 30 MiB of memory."""

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from timebank.statements.documents import Statement, hours


class Page(FPDF):
    """A4 with page numbers, in the fonts that every reader has."""

    def __init__(self) -> None:
        super().__init__(format="A4")
        # These fonts know the letters of western Europe; another is shown as a question mark.
        self.core_fonts_encoding = "windows-1252"
        self.set_auto_page_break(auto=True, margin=18)

    def footer(self) -> None:
        self.set_y(-14)
        self.set_font("Helvetica", size=8)
        self.cell(0, 8, f"{self.page_no()} / {{nb}}", align="C")


def printable(text: str, length: int) -> str:
    """What the page's fonts can show, cut to `length` characters."""
    shown = text.encode("windows-1252", errors="replace").decode("windows-1252")
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def to_pdf(statement: Statement) -> bytes:
    """A4 pages in French and English words. Takes about a millisecond per line: not for the event
    loop."""
    page = Page()
    page.set_title("Relevé de compte / Account statement")
    page.set_creation_date(statement.end)
    page.add_page()
    page.set_font("Helvetica", "B", 15)
    page.cell(0, 9, "Relevé de compte / Account statement", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.set_font("Helvetica", size=10)
    start = f"{statement.start:%Y-%m-%d %H:%M} UTC" if statement.start else "…"
    for text in (
        f"{statement.city_id} · {statement.account_id}",
        f"{start} → {statement.end:%Y-%m-%d %H:%M} UTC".replace("→", "-"),
        f"Au début / Opening: {hours(statement.opening_minutes)}",
        f"À la fin / Closing: {hours(statement.closing_minutes)}",
    ):
        page.cell(0, 6, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.ln(4)
    widths = (34, 28, 28, 100)
    page.set_font("Helvetica", "B", 9)
    heads = ("Date (UTC)", "Reçu / donné", "Solde / balance", "Note / memo")
    for width, head in zip(widths, heads, strict=True):
        page.cell(width, 7, head, border="B", align="L" if width in (34, 100) else "R")
    page.ln()
    page.set_font("Helvetica", size=9)
    for line in statement.lines:
        page.cell(widths[0], 6, f"{line.posted_at:%Y-%m-%d %H:%M}")
        page.cell(widths[1], 6, hours(line.posting.minutes), align="R")
        page.cell(widths[2], 6, hours(line.posting.balance_minutes), align="R")
        memo = line.memo or ("annulation / reversal" if line.reverses else "")
        page.cell(widths[3], 6, "  " + printable(memo.replace("\n", " "), 58))
        page.ln()
    return bytes(page.output())
