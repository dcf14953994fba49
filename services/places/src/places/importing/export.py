"""Places as a table of the national schema "lieux de médiation numérique".

https://schema.data.gouv.fr/LaMednum/standard-mediation-num/

We hold no SIRET or RNA number, which the schema asks for in `pivot`: the column is written empty,
and a checker of the schema says so. The schema has no room for the profile, the capacity and the
anti-passback of a place. The rest comes back from an import of the file as it was; the places are
then of the source `standard-mediation`, whatever theirs was before.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from places.domain.place import Place
from places.importing.findings import neutral
from places.importing.rows import STANDARD_COLUMNS


def export_row(place: Place) -> dict[str, str]:
    """The cells of one place; columns that we know nothing of are left out."""
    details = place.details
    return {
        "id": details.external_id or str(place.place_id),
        "nom": neutral(details.name),
        "commune": neutral(details.commune),
        "code_postal": details.postcode,
        "code_insee": details.insee_code or "",
        "adresse": neutral(details.address),
        "latitude": "" if details.latitude is None else f"{details.latitude:.15g}",
        "longitude": "" if details.longitude is None else f"{details.longitude:.15g}",
        "horaires": details.opening_hours or "",
        "source": neutral(details.attribution or ""),
        "itinerance": itinerance(place),
        "date_maj": place.schedule.computed_at.date().isoformat(),
    }


def itinerance(place: Place) -> str:
    if not place.details.itinerant:
        return "Fixe"
    return "Itinérant" if place.details.profile == "itinerant" else "Itinérant|Fixe"


def write_export(path: Path, places: Sequence[Place]) -> None:
    """Written whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, STANDARD_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(export_row(place) for place in places)
    partial.replace(path)
