"""Builds demo_places.json from the two published files. Run once, by hand, when the sources change:

    python tools/src/copass/data/build_demo_places.py FOLDER_WITH_THE_TWO_CSV_FILES

The demo network reads only the small file, so that it works without the sources. Names, addresses
and coordinates are those published. France services counters keep their published hours; third
places have none published and get invented ones, marked `"hours_invented": true`. The places whose
name begins with "Démo" are invented as a whole: they hold the corner cases that a demonstration
needs at any hour of any day (open day and night, closed, two people at most, …).
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

THIRD_PLACES = "tiers_lieux_cget_2019.csv"
COUNTERS = "france_services_2022-12.csv"
THIRD_PLACES_PER_CITY = 3
COUNTERS_PER_CITY = 3

COWORKING_HOURS = "Mo-Fr 08:30-19:00"
FABLAB_HOURS = "Tu-Fr 10:00-12:30,14:00-19:00; Sa 14:00-18:00"

LICENCE = "Licence Ouverte / Open Licence 2.0 (Etalab)"
PARIS = "Europe/Paris"
# city id, name, time zone, INSEE codes of the commune (with its municipal districts)
CITIES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("bourges", "Bourges", PARIS, ("18033",)),
    ("nantes", "Nantes", PARIS, ("44109",)),
    ("rennes", "Rennes", PARIS, ("35238",)),
    ("brest", "Brest", PARIS, ("29019",)),
    ("lille", "Lille", PARIS, ("59350",)),
    ("strasbourg", "Strasbourg", PARIS, ("67482",)),
    ("lyon", "Lyon", PARIS, ("69123", *(str(69381 + n) for n in range(9)))),
    ("grenoble", "Grenoble", PARIS, ("38185",)),
    ("marseille", "Marseille", PARIS, ("13055", *(str(13201 + n) for n in range(16)))),
    ("montpellier", "Montpellier", PARIS, ("34172",)),
    ("toulouse", "Toulouse", PARIS, ("31555",)),
    ("bordeaux", "Bordeaux", PARIS, ("33063",)),
    ("poitiers", "Poitiers", PARIS, ("86194",)),
    ("saint-denis-reunion", "Saint-Denis de La Réunion", "Indian/Reunion", ("97411",)),
)

NIGHT_AND_DAY = "24/7"
NEVER = "off"
# key, city, name, hours, capacity, anti-passback
CORNER_CASES: tuple[tuple[str, str, str, str, int | None, str], ...] = (
    ("demo-night", "nantes", "Démo · La salle de nuit", NIGHT_AND_DAY, None, "off"),
    ("demo-closed", "nantes", "Démo · L'atelier en travaux", NEVER, None, "off"),
    ("demo-small", "bourges", "Démo · Le studio pour deux", NIGHT_AND_DAY, 2, "off"),
    ("demo-airlock", "lyon", "Démo · Le sas", NIGHT_AND_DAY, None, "hard"),
)

DOOR_NAMES = {"public": "Entrée", "second": "Porte de l'atelier", "private": "Porte des résidents"}


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def doors(*kinds: str) -> list[dict[str, str]]:
    return [
        {
            "key": kind,
            "name": DOOR_NAMES[kind],
            "kind": "private" if kind == "private" else "public",
        }
        for kind in kinds
    ]


def third_place(row: dict[str, str], city_id: str, timezone: str) -> dict[str, Any]:
    fablab = "fablab" in row["TYPO"]
    return {
        "key": f"cget-{row['ID']}",
        "city_id": city_id,
        "name": row["NOM_TL"],
        "profile": "creation_projects" if fablab else "work_enterprise",
        "address": row["ADRESSE"],
        "postcode": row["CP"],
        "commune": row["NOMCOM"],
        "insee_code": row["INSEECOM"],
        "latitude": float(row["LAT"]),
        "longitude": float(row["LONG"]),
        "timezone": timezone,
        "opening_hours": FABLAB_HOURS if fablab else COWORKING_HOURS,
        "hours_invented": True,
        "capacity": 20 if fablab else 40,
        "anti_passback": "off",
        "source": "cget-2019",
        "external_id": row["ID"],
        "licence": LICENCE,
        "attribution": "CGET, mission Coworking, 2019. Horaires inventés pour la démonstration.",
        "doors": doors("public", "second") if fablab else doors("public"),
    }


def counter(row: dict[str, str], city_id: str, timezone: str) -> dict[str, Any]:
    return {
        "key": f"fs-{row['id_fs']}",
        "city_id": city_id,
        "name": row["lib_fs"],
        "profile": "mediation_access",
        "address": row["adresse"],
        "postcode": row["code_postal"],
        "commune": row["lib_com"],
        "insee_code": row["insee_com"],
        "latitude": float(row["latitude"]),
        "longitude": float(row["longitude"]),
        "timezone": timezone,
        "opening_hours": row["osm_hours_derived"],
        "hours_invented": False,
        "capacity": None,
        "anti_passback": "off",
        "source": "france-services-2022-12",
        "external_id": row["id_fs"],
        "licence": LICENCE,
        "attribution": "Agence nationale de la cohésion des territoires, décembre 2022",
        "doors": doors("public"),
    }


def invented_places(real: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A house for each city, and the corner cases. They stand where a real place of the city is."""
    near = {place["city_id"]: place for place in reversed(real)}
    invented = {
        "address": "Adresse inventée",
        "hours_invented": True,
        "source": None,
        "external_id": None,
        "licence": None,
        "attribution": "Inventé pour la démonstration",
    }
    houses = [
        near[city_id]
        | invented
        | {
            "key": f"house-{city_id}",
            "name": f"Démo · Maison commune de {name}",
            "profile": "coliving",
            "opening_hours": NIGHT_AND_DAY,
            "capacity": 200,
            "doors": doors("public", "private"),
        }
        for city_id, name, _timezone, _codes in CITIES
    ]
    corner_cases = [
        near[city_id]
        | invented
        | {
            "key": key,
            "name": name,
            "profile": "work_enterprise",
            "opening_hours": hours,
            "capacity": capacity,
            "anti_passback": anti_passback,
            "doors": doors("public"),
        }
        for key, city_id, name, hours, capacity, anti_passback in CORNER_CASES
    ]
    return houses + corner_cases


def build(folder: Path) -> dict[str, Any]:
    third_places = read_rows(folder / THIRD_PLACES)
    counters = read_rows(folder / COUNTERS)
    places: list[dict[str, Any]] = []
    for city_id, _name, timezone, codes in CITIES:
        chosen = [
            row
            for row in third_places
            if row["INSEECOM"] in codes
            and row["TYPO"]
            and row["LAT"]
            and row["ADRESSE"]
            and float(row["PRECISION"] or 0) >= 0.6  # a poor geocoding is not worth showing
        ]
        # Fab labs first: they are fewer, and a city should show both kinds.
        chosen.sort(key=lambda row: ("fablab" not in row["TYPO"], int(row["ID"])))
        fablabs = [row for row in chosen if "fablab" in row["TYPO"]][:1]
        coworking = [row for row in chosen if "fablab" not in row["TYPO"]]
        kept = fablabs + coworking[: THIRD_PLACES_PER_CITY - len(fablabs)]
        places += [third_place(row, city_id, timezone) for row in kept]
        fixed = [
            row
            for row in counters
            if row["insee_com"] in codes
            and row["itinerance"] == "Non"
            and row["osm_hours_derived"]
            and row["latitude"]
        ]
        places += [counter(row, city_id, timezone) for row in fixed[:COUNTERS_PER_CITY]]
    return {
        "sources": [
            {
                "file": THIRD_PLACES,
                "title": "Tiers-lieux en France (CGET, mission Coworking, 2019)",
                "publisher": "Commissariat général à l'égalité des territoires",
                "licence": LICENCE,
            },
            {
                "file": COUNTERS,
                "title": "Liste des structures France services (décembre 2022)",
                "publisher": "Agence nationale de la cohésion des territoires",
                "licence": LICENCE,
            },
        ],
        "changes": "A selection. Hours marked hours_invented, and places whose key begins with "
        "demo- or house-, are invented for the demonstration.",
        "cities": [
            {"city_id": city_id, "name": name, "timezone": timezone}
            for city_id, name, timezone, _codes in CITIES
        ],
        "places": places + invented_places(places),
    }


if __name__ == "__main__":
    target = Path(__file__).with_name("demo_places.json")
    text = json.dumps(build(Path(sys.argv[1])), ensure_ascii=False, indent=1) + "\n"
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(text)} characters")
