"""A statement for paper. Imported when one is asked for: the library costs 30 MiB of memory."""

from importlib.resources import as_file, files

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import TTFFont

from timebank.statements.documents import Statement, hours
from timebank.statements.store import StatementLine

# Latin, Greek and Cyrillic, so that a name is written as its owner writes it.
FONT = files("fontpkg_noto_sans") / "files" / "NotoSans[wdth,wght].ttf"
WIDTHS = (32, 25, 28, 105)
HEADS = ("Date (UTC)", "Reçu / donné", "Solde / balance", "Note / memo")
NOTE_MAX = 100


class Page(FPDF):
    """A4 with page numbers. Only the letters that are used go into the file.

    `with Page() as page`: the font is read to the last, and the library leaves it open.
    """

    def __init__(self) -> None:
        super().__init__(format="A4")
        with as_file(FONT) as path:
            self.add_font("Noto", fname=path)
        font = self.fonts["noto"]
        assert isinstance(font, TTFFont)
        self.font_read = font
        self.letters = font.cmap
        self.set_auto_page_break(auto=True, margin=18)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self.font_read.ttfont.close()

    def footer(self) -> None:
        self.set_y(-14)
        self.set_font("Noto", size=8)
        self.cell(0, 8, f"{self.page_no()} / {{nb}}", align="C")

    def fit(self, text: str, width: float) -> str:
        """On one line of `width` millimetres; a letter that the font has not is a question mark."""
        text = " ".join(text[:NOTE_MAX].split())
        shown = "".join(letter if ord(letter) in self.letters else "?" for letter in text)
        if self.get_string_width(shown) <= width:
            return shown
        while self.get_string_width(f"{shown}…") > width:
            shown = shown[:-1]
        return f"{shown}…"


def to_pdf(statement: Statement) -> bytes:
    """A4 pages in French and English words. Takes up to a millisecond per line: not for the event
    loop."""
    with Page() as page:
        write(page, statement)
        return bytes(page.output())


def write(page: Page, statement: Statement) -> None:
    page.set_title("Relevé de compte / Account statement")
    page.set_creation_date(statement.end)
    page.add_page()
    page.set_font("Noto", size=15)
    page.cell(0, 9, "Relevé de compte / Account statement", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.set_font("Noto", size=10)
    start = f"{statement.start:%Y-%m-%d %H:%M} UTC" if statement.start else "…"
    for text in (
        f"{statement.city_id} · {statement.account_id}",
        f"{start} – {statement.end:%Y-%m-%d %H:%M} UTC",
        f"Au début / Opening: {hours(statement.opening_minutes)}",
        f"À la fin / Closing: {hours(statement.closing_minutes)}",
    ):
        page.cell(0, 6, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.ln(4)
    page.set_font("Noto", size=9)
    for width, head, align in zip(WIDTHS, HEADS, "LRRL", strict=True):
        page.cell(width, 7, f"  {head}" if head == HEADS[-1] else head, border="B", align=align)
    page.ln()
    for line in statement.lines:
        page.cell(WIDTHS[0], 6, f"{line.posted_at:%Y-%m-%d %H:%M}")
        page.cell(WIDTHS[1], 6, hours(line.posting.minutes), align="R")
        page.cell(WIDTHS[2], 6, hours(line.posting.balance_minutes), align="R")
        page.cell(WIDTHS[3], 6, "  " + page.fit(note(line), WIDTHS[3] - 5))
        page.ln()


def note(line: StatementLine) -> str:
    """The words, or that it is taken back; before them the day, of what happened elsewhere."""
    words = line.memo or ("annulation / reversal" if line.reverses else "")
    if line.occurred_at is None:
        return words
    return f"{line.occurred_at:%Y-%m-%d} · {words}" if words else f"{line.occurred_at:%Y-%m-%d}"
