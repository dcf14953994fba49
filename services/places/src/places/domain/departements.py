"""French départements: what a commune's code says about a place.

`data/departements.tsv` has, per département, its main town, its zone of school holidays, and a box
of coordinates. The boxes of the départements with data are those of the places in two open data
sets (see the file's head), widened by a third of a degree: they tell that a place lies in another
part of the country, not that it lies in another street.
"""

import csv
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

POSTCODE = re.compile(r"\d{5}")
INSEE_CODE = re.compile(r"(?:[013-9]\d|2[AB1-9])\d{3}")
METROPOLITAN = "Europe/Paris"


@dataclass(frozen=True, slots=True)
class Box:
    """Degrees, WGS 84."""

    south: float
    north: float
    west: float
    east: float

    def holds(self, latitude: float, longitude: float) -> bool:
        return self.south <= latitude <= self.north and self.west <= longitude <= self.east


@dataclass(frozen=True, slots=True)
class Departement:
    """`school_zone` is A, B or C, and empty where another calendar holds."""

    code: str
    main_town: str
    school_zone: str
    timezone: str
    box: Box


@lru_cache(maxsize=1)
def departements() -> dict[str, Departement]:
    """All of them, by code."""
    text = files("places").joinpath("data/departements.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        row["code"]: Departement(
            code=row["code"],
            main_town=row["main_town"],
            school_zone=row["school_zone"],
            timezone=row["timezone"],
            box=Box(*(float(row[side]) for side in ("south", "north", "west", "east"))),
        )
        for row in csv.DictReader(lines, delimiter="\t")
    }


def departement_of(insee_code: str | None, postcode: str | None) -> str | None:
    """The code of the département, of the commune's code rather than of the postcode's.

    A postcode may reach over the border of a département. None when neither is one we know.
    """
    code = None
    if insee_code and INSEE_CODE.fullmatch(insee_code):
        code = insee_code[:3] if insee_code[:2] in {"97", "98"} else insee_code[:2]
    elif postcode and POSTCODE.fullmatch(postcode):
        code = of_postcode(postcode)
    return code if code in departements() else None


def of_postcode(postcode: str) -> str:
    if postcode == "97133":
        return "977"
    if postcode == "97150":
        return "978"
    if postcode[:2] in {"97", "98"}:
        return postcode[:3]
    if postcode[:2] == "20":
        return "2A" if postcode[:3] in {"200", "201"} else "2B"
    return postcode[:2]


def timezone_of(departement: str | None) -> ZoneInfo:
    known = departements().get(departement or "")
    return ZoneInfo(known.timezone if known else METROPOLITAN)


def fold(text: str) -> str:
    """Lower case without accents or signs, to search in: `L'Étoile – Œuvre` → `l etoile oeuvre`."""
    spelled = text.replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae").replace("Æ", "AE")
    decomposed = unicodedata.normalize("NFKD", spelled.casefold())
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return re.sub(r"[^a-z0-9]+", " ", plain).strip()


def slug(town: str) -> str:
    """`Lyon 3e Arrondissement` → `lyon`, `Saint-Étienne` → `saint-etienne`."""
    words = re.sub(r"\b\d+(?:er|e|eme)? arrondissement\b|\bcedex\b.*", "", fold(town)).strip()
    return re.sub(r"\s+", "-", re.sub(r"^(paris|lyon|marseille) \d+\w*$", r"\1", words))
