"""From the cells of a row to the details of a place, with everything that is wrong on the way.

A row is taken whole or not at all. What makes it useless or doubtful as a place rejects it: no
identifier, no name, no commune, no good postcode, coordinates in another part of the country, text
that is not text. What only makes it poorer is a warning, and the value is left out: hours that
cannot be read (the place is then never open by itself), an address or coordinates that are missing.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from places.domain.departements import (
    INSEE_CODE,
    POSTCODE,
    departement_of,
    departements,
    timezone_of,
)
from places.domain.hours import UnreadableHours, check_expression
from places.domain.place import Details
from places.importing.findings import FORMULA_STARTS, VALUE_CHARACTERS_MAX, Finding
from places.importing.weekly import Contradiction, weekly_hours

Row = Mapping[str, str]

NAME_CHARACTERS_MAX = 200
ADDRESS_CHARACTERS_MAX = 300
COORDINATE = re.compile(r"-?\d{1,3}(?:\.\d{1,20})?", re.ASCII)
# UTF-8 once taken for Windows-1252: `é` became `Ã©`.
MOJIBAKE = re.compile("[ÃÂ][\u0080-\u00bf\u0152-\u0178\u2018-\u2122]|â€")


@dataclass
class Cells:
    """The cells of one row, and what was found about them."""

    row: Row
    line: int
    id_column: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def rejected(self) -> bool:
        return any(finding.level == "rejected" for finding in self.findings)

    def raw(self, column: str) -> str:
        return self.row.get(column, "").strip()

    def note(
        self, level: Literal["rejected", "warning"], column: str, code: str, message: str
    ) -> None:
        self.findings.append(
            Finding(
                line=self.line,
                external_id=self.raw(self.id_column)[:VALUE_CHARACTERS_MAX],
                level=level,
                field=column,
                code=code,
                message=message,
                value=self.row.get(column, "")[:VALUE_CHARACTERS_MAX],
            )
        )

    def reject(self, column: str, code: str, message: str) -> None:
        self.note("rejected", column, code, message)

    def warn(self, column: str, code: str, message: str) -> None:
        self.note("warning", column, code, message)

    def check_encoding(self) -> None:
        for column, value in self.row.items():
            if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in value):
                self.reject(column, "bad_encoding", "bytes that are not UTF-8")

    def text(self, column: str, *, longest: int = NAME_CHARACTERS_MAX) -> str:
        """One line of text, "" when there is none; rejects what must not get into a place."""
        value = self.row.get(column, "")
        if value.startswith(FORMULA_STARTS) and value.strip() not in {"", "-"}:
            self.reject(column, "formula", "begins like a formula of a spreadsheet")
            return ""
        value = self.repaired(column, " ".join(value.split()))
        if value == "-":
            return ""
        if any(unicodedata.category(letter) in {"Cc", "Cs", "Cn", "Co"} for letter in value):
            self.reject(column, "control_characters", "contains characters that are not text")
        elif any(
            letter in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for letter in value
        ):
            self.reject(column, "direction_override", "contains marks that turn the text around")
        elif len(value) > longest:
            self.reject(column, "too_long", f"more than {longest} characters")
        return unicodedata.normalize("NFC", value)

    def repaired(self, column: str, value: str) -> str:
        if not MOJIBAKE.search(value):
            return value
        try:
            repaired = value.encode("cp1252").decode("utf-8")
        except UnicodeError:
            self.warn(column, "garbled", "looks wrongly decoded; imported as it is")
            return value
        self.warn(column, "repaired_encoding", f"read as {repaired!r}")
        return repaired

    def required(self, column: str, what: str) -> str:
        value = self.text(column)
        if not value and not self.blamed(column):
            self.reject(column, "missing", f"no {what}")
        return value

    def blamed(self, column: str) -> bool:
        return any(each.field == column and each.level == "rejected" for each in self.findings)

    def identifier(self) -> str:
        return self.required(self.id_column, "identifier")

    def postcode(self, column: str) -> str:
        value = self.raw(column)
        if not value:
            self.reject(column, "missing", "no postcode")
        elif not POSTCODE.fullmatch(value) or not value.isascii():
            self.reject(column, "malformed", "a French postcode has five digits")
        elif departement_of(None, value) is None:
            self.reject(column, "unknown_departement", "no département has this postcode")
        return value

    def insee_code(self, column: str, postcode_column: str) -> str | None:
        """The commune's code; None, with a warning, when there is no good one."""
        value = self.raw(column).upper()
        if not value:
            self.warn(column, "missing", "no INSEE code: the département is the postcode's")
            return None
        if not INSEE_CODE.fullmatch(value) or departement_of(value, None) is None:
            self.warn(column, "malformed", "no INSEE code: the département is the postcode's")
            return None
        by_postcode = departement_of(None, self.raw(postcode_column))
        if by_postcode is not None and by_postcode != departement_of(value, None):
            self.warn(
                postcode_column,
                "other_departement",
                f"a postcode of {by_postcode} for a commune of {departement_of(value, None)}",
            )
        return value

    def coordinates(
        self, latitude_column: str, longitude_column: str, departement: str | None
    ) -> tuple[float | None, float | None]:
        """Degrees. Rejects those that cannot be read or lie in another part of the country."""
        texts = self.raw(latitude_column), self.raw(longitude_column)
        if texts == ("", ""):
            self.warn(latitude_column, "missing", "no coordinates: not found near a point")
            return None, None
        for column, text in zip((latitude_column, longitude_column), texts, strict=True):
            if not COORDINATE.fullmatch(text):
                self.reject(column, "malformed", "not a decimal number of degrees")
                return None, None
        latitude, longitude = float(texts[0]), float(texts[1])
        known = departements().get(departement or "")
        if known is not None and not known.box.holds(latitude, longitude):
            elsewhere = [
                each.code for each in departements().values() if each.box.holds(latitude, longitude)
            ]
            where = f"perhaps in {', '.join(elsewhere)}" if elsewhere else "outside of France"
            self.reject(
                latitude_column,
                "outside_departement",
                f"{latitude}, {longitude} is not in département {known.code}, {where}",
            )
        return latitude, longitude

    def hours(self, column: str) -> str | None:
        """An OSM expression; None, with a warning, when it cannot be read."""
        value = self.repaired(column, " ".join(self.row.get(column, "").split()))
        if not value:
            return None
        try:
            check_expression(value)
        except UnreadableHours as error:
            self.warn(column, "unreadable_hours", f"imported without hours: {error}")
            return None
        return value


@dataclass(frozen=True, slots=True)
class Format:
    """A layout of files. `needs` tells it from the others; other columns than `knows` are named
    in the report, and not read."""

    name: str
    source: str
    licence: str
    id_column: str
    needs: frozenset[str]
    knows: frozenset[str]
    read: Callable[[Cells, "Format"], Details]


def located(
    cells: Cells, postcode_column: str, insee_column: str, latitude: str, longitude: str
) -> tuple[str, str | None, float | None, float | None, str]:
    """Postcode, INSEE code, latitude, longitude and time zone, checked against each other."""
    postcode = cells.postcode(postcode_column)
    insee_code = cells.insee_code(insee_column, postcode_column)
    departement = departement_of(insee_code, postcode)
    lat, lon = cells.coordinates(latitude, longitude, departement)
    return postcode, insee_code, lat, lon, timezone_of(departement).key


def address_of(cells: Cells, *columns: str) -> str:
    parts = [cells.text(column, longest=ADDRESS_CHARACTERS_MAX) for column in columns]
    address = ", ".join(part for part in parts if part)
    if not address and not any(cells.blamed(column) for column in columns):
        cells.warn(columns[0], "missing", "no address")
    return address[:ADDRESS_CHARACTERS_MAX]


# --- third places, CGET 2019


CGET_PROFILES = {
    "Tiers lieux à dominante coworking": "work_enterprise",
    "Tiers lieux à dominante fablab": "creation_projects",
}


def read_cget(cells: Cells, layout: Format) -> Details:
    external_id = cells.identifier()
    kind = cells.raw("TYPO")
    if kind not in CGET_PROFILES:
        cells.warn("TYPO", "unknown_type", "taken for a place of work and enterprise")
    name = cells.required("NOM_TL", "name")
    # The census' own name of the commune, else the one that people wrote.
    commune = cells.text("NOMCOM") or cells.required("COMINIT", "commune")
    postcode, insee_code, latitude, longitude, timezone = located(
        cells, "CP", "INSEECOM", "LAT", "LONG"
    )
    return Details(
        name=name,
        profile=CGET_PROFILES.get(kind, "work_enterprise"),
        postcode=postcode,
        commune=commune,
        address=address_of(cells, "ADRESSE"),
        insee_code=insee_code,
        latitude=latitude,
        longitude=longitude,
        timezone=timezone,
        source=layout.source,
        external_id=external_id,
        licence=layout.licence,
        attribution="Recensement des tiers-lieux, CGET (2019)",
    )


# --- France services, December 2022


FRANCE_SERVICES_DAYS = {
    "h_lundi": "Mo",
    "h_mardi": "Tu",
    "h_mercredi": "We",
    "h_jeudi": "Th",
    "h_vendredi": "Fr",
    "h_samedi": "Sa",
}


def france_services_hours(cells: Cells) -> str | None:
    """The derived OSM column where it can be read, else the published hours of the weekdays."""
    derived = cells.hours("osm_hours_derived")
    if derived is not None:
        return derived
    texts = {day: cells.raw(column) for column, day in FRANCE_SERVICES_DAYS.items()}
    try:
        expression = weekly_hours(texts)
    except Contradiction as error:
        column = next(name for name, day in FRANCE_SERVICES_DAYS.items() if day == error.day)
        cells.warn(column, "unreadable_hours", f"imported without hours: {error}")
        return None
    if expression is None:
        cells.warn("h_lundi", "no_hours", "imported without hours: none are published")
    return expression


def read_france_services(cells: Cells, layout: Format) -> Details:
    external_id = cells.identifier()
    itinerant = cells.raw("itinerance") == "Oui"
    name = cells.required("lib_fs", "name")
    commune = cells.required("lib_com", "commune")
    postcode, insee_code, latitude, longitude, timezone = located(
        cells, "code_postal", "insee_com", "latitude", "longitude"
    )
    return Details(
        name=name,
        profile="itinerant" if itinerant else "mediation_access",
        postcode=postcode,
        commune=commune,
        address=address_of(cells, "adresse", "complement_adresse"),
        insee_code=insee_code,
        latitude=latitude,
        longitude=longitude,
        timezone=timezone,
        opening_hours=france_services_hours(cells),
        itinerant=itinerant,
        source=layout.source,
        external_id=external_id,
        licence=layout.licence,
        attribution="Liste des France services, ANCT (décembre 2022)",
    )


# --- the national schema "lieux de médiation numérique"


def read_standard(cells: Cells, layout: Format) -> Details:
    external_id = cells.identifier()
    kinds = cells.raw("itinerance").split("|")
    itinerant = "Itinérant" in kinds
    name = cells.required("nom", "name")
    commune = cells.required("commune", "commune")
    postcode, insee_code, latitude, longitude, timezone = located(
        cells, "code_postal", "code_insee", "latitude", "longitude"
    )
    return Details(
        name=name,
        profile="itinerant" if kinds == ["Itinérant"] else "mediation_access",
        postcode=postcode,
        commune=commune,
        address=address_of(cells, "adresse", "complement_adresse"),
        insee_code=insee_code,
        latitude=latitude,
        longitude=longitude,
        timezone=timezone,
        opening_hours=cells.hours("horaires"),
        itinerant=itinerant,
        source=layout.source,
        external_id=external_id,
        licence=layout.licence,
        attribution=cells.text("source") or None,
    )


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CGET = Format(
    name="cget",
    source="cget-2019",
    licence="Licence Ouverte 2.0",
    id_column="ID",
    needs=frozenset({"ID", "NOM_TL", "ADRESSE", "CP", "INSEECOM", "NOMCOM", "TYPO", "LAT", "LONG"}),
    knows=words(
        "ID NOM_TL ADRESSE CP COMINIT INSEECOM NOMCOM WEB TWITTER FACEBOOK TYPO LAT LONG GEOCOD"
        " PRECISION METRO NOMMETRO INSEEREG NOMREG INSEEMETRO INSEEDEP NOMCOMMETRO POPCOM COMCLASS"
        " INSEE_ZE NOM_ZE CLASS_ZE POP_ZE"
    ),
    read=read_cget,
)
FRANCE_SERVICES = Format(
    name="france-services",
    source="france-services",
    licence="Licence Ouverte 2.0",
    id_column="id_fs",
    needs=words("id_fs lib_fs adresse insee_com code_postal lib_com latitude longitude itinerance")
    | FRANCE_SERVICES_DAYS.keys(),
    knows=words(
        "id_fs insee_dep lib_fs adresse complement_adresse insee_com code_postal lib_com latitude"
        " longitude commentaire itinerance format_fs groupe labellisation osm_hours_derived"
    )
    | FRANCE_SERVICES_DAYS.keys(),
    read=read_france_services,
)
STANDARD_COLUMNS = (
    "id",
    "pivot",
    "nom",
    "commune",
    "code_postal",
    "code_insee",
    "adresse",
    "complement_adresse",
    "latitude",
    "longitude",
    "typologie",
    "telephone",
    "courriels",
    "site_web",
    "horaires",
    "presentation_resume",
    "presentation_detail",
    "source",
    "itinerance",
    "structure_parente",
    "date_maj",
    "services",
    "publics_specifiquement_adresses",
    "prise_en_charge_specifique",
    "frais_a_charge",
    "dispositif_programmes_nationaux",
    "formations_labels",
    "autres_formations_labels",
    "modalites_acces",
    "modalites_accompagnement",
    "fiche_acces_libre",
    "prise_rdv",
)
STANDARD = Format(
    name="standard-mediation",
    source="standard-mediation",
    licence="Licence Ouverte 2.0",
    id_column="id",
    needs=frozenset({"id", "pivot", "nom", "commune", "code_postal", "adresse", "date_maj"}),
    knows=frozenset(STANDARD_COLUMNS),
    read=read_standard,
)
FORMATS = {layout.name: layout for layout in (CGET, FRANCE_SERVICES, STANDARD)}


def read_row(row: Row, line: int, layout: Format) -> tuple[Details | None, list[Finding]]:
    """The details of the place in a row (None when it is rejected), and what was found."""
    cells = Cells(row, line, layout.id_column)
    cells.check_encoding()
    if cells.rejected:
        return None, cells.findings
    details = layout.read(cells, layout)
    return (None if cells.rejected else details), cells.findings
