import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places.importing.files import UnreadableFile, read_bytes, read_file, read_text
from places.importing.findings import Finding, write_report
from places.importing.rows import CGET, FRANCE_SERVICES, STANDARD, Format
from places.importing.weekly import Contradiction, weekly_hours

DATA = Path(__file__).parent / "data"

GOOD = {
    "cget": {
        "ID": "1",
        "NOM_TL": "ADE Coworking",
        "ADRESSE": "9 Rue du Petit Châtelier",
        "CP": "44300",
        "INSEECOM": "44109",
        "NOMCOM": "Nantes",
        "TYPO": "Tiers lieux à dominante coworking",
        "LAT": "47.245935",
        "LONG": "-1.505602",
    },
    "france-services": {
        "id_fs": "1",
        "lib_fs": "France services de Rezé",
        "adresse": "1 Rue de la Paix",
        "insee_com": "44143",
        "code_postal": "44400",
        "lib_com": "Rezé",
        "latitude": "47.19",
        "longitude": "-1.55",
        "itinerance": "Non",
        "h_lundi": "09:00 - 12:00",
        "h_mardi": "",
        "h_mercredi": "",
        "h_jeudi": "",
        "h_vendredi": "",
        "h_samedi": "",
    },
    "standard-mediation": {
        "id": "lieu-1",
        "pivot": "43493312300029",
        "nom": "Médiathèque",
        "commune": "Nantes",
        "code_postal": "44000",
        "code_insee": "44109",
        "adresse": "1 rue du Port",
        "date_maj": "2026-01-01",
        "latitude": "47.2",
        "longitude": "-1.5",
        "horaires": "Mo-Fr 09:00-12:00",
        "itinerance": "Fixe",
    },
}


def table(layout: Format, *changes: dict[str, str]) -> str:
    """A file with one row per set of changes to the good row."""
    good = GOOD[layout.name]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(good), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {**good, layout.id_column: str(number), **each} for number, each in enumerate(changes)
    )
    return file.getvalue()


def found(findings: list[Finding]) -> list[tuple[int, str, str, str]]:
    return [(each.line, each.level, each.field, each.code) for each in findings]


# --- published files


def test_a_sample_of_the_third_places() -> None:
    source = read_file(DATA / "tiers_lieux_cget_2019_sample.csv")
    assert (source.layout.name, source.rows, len(source.places)) == ("cget", 9, 6)
    rejected = [each for each in found(source.findings) if each[1] == "rejected"]
    assert rejected == [
        (5, "rejected", "CP", "malformed"),
        (8, "rejected", "CP", "malformed"),
        (10, "rejected", "CP", "malformed"),
        (10, "rejected", "LAT", "outside_departement"),
    ]
    first = source.places[0][1]
    assert (first.name, first.profile, first.postcode) == (
        "ADE Coworking",
        "work_enterprise",
        "44300",
    )
    assert first.opening_hours is None
    assert first.attribution == "Recensement des tiers-lieux, CGET (2019)"


def test_a_sample_of_the_france_services_with_rows_over_several_lines() -> None:
    source = read_file(DATA / "france_services_2022-12_sample.csv")
    assert (source.layout.name, source.rows, len(source.places)) == ("france-services", 12, 10)
    by_id = {details.external_id: (line, details) for line, details in source.places}
    assert (
        by_id["1"][1].opening_hours == "Mo-Th 09:00-12:00,13:30-17:00; Fr 09:00-12:00,13:30-16:00"
    )
    assert (by_id["3"][1].itinerant, by_id["3"][1].profile) == (True, "itinerant")
    assert by_id["124"][1].departement == "2A"
    # Lines are those of the file, although some rows take more than one.
    lines = (DATA / "france_services_2022-12_sample.csv").read_text(encoding="utf-8").split("\n")
    for line, details in source.places:
        assert lines[line - 1].startswith(f"{details.external_id},")
    assert any(
        later - line > 1
        for (line, _), (later, _) in zip(source.places, source.places[1:], strict=False)
    )
    contradictory = [each for each in source.findings if each.external_id == "65"]
    assert [(each.level, each.field, each.code) for each in contradictory] == [
        ("warning", "h_mardi", "unreadable_hours")
    ]
    assert by_id["65"][1].opening_hours is None


def test_the_sample_of_the_national_schema_lies_in_aix_and_says_reims() -> None:
    source = read_file(DATA / "standard-mediation-num_exemple-valide.csv")
    assert source.layout.name == "standard-mediation"
    assert found(source.findings) == [(2, "rejected", "latitude", "outside_departement")]
    moved = (DATA / "standard-mediation-num_exemple-valide.csv").read_text(encoding="utf-8")
    moved = moved.replace('"43.52609","5.41423"', '"49.25","4.03"')
    source = read_text(moved)
    assert source.findings == []
    details = source.places[0][1]
    assert details.name == "Anonymal"
    assert details.opening_hours == "Mo-Fr 09:00-12:00,14:00-18:30; Sa 08:30-12:00"
    assert (details.itinerant, details.profile) == (True, "itinerant")
    assert details.address == "12 BIS RUE DE LECLERCQ, Le patio du bois de l'Aulne"


# --- rejections, each alone


@pytest.mark.parametrize("layout", [CGET, FRANCE_SERVICES, STANDARD], ids=lambda each: each.name)
def test_a_good_row_is_taken_without_a_word(layout: Format) -> None:
    source = read_text(table(layout, {}))
    assert len(source.places) == 1
    assert source.findings == []
    assert source.layout is layout


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"nom": ""}, "nom", "missing"),
        ({"nom": "  -  "}, "nom", "missing"),
        ({"commune": ""}, "commune", "missing"),
        ({"id": ""}, "id", "missing"),
        ({"code_postal": ""}, "code_postal", "missing"),
        ({"code_postal": "0"}, "code_postal", "malformed"),
        ({"code_postal": "4400"}, "code_postal", "malformed"),
        ({"code_postal": "٤٤٠٠٠"}, "code_postal", "malformed"),
        ({"code_postal": "00100", "code_insee": ""}, "code_postal", "unknown_departement"),
        ({"latitude": "48.85", "longitude": "2.35"}, "latitude", "outside_departement"),
        ({"latitude": "-1.5", "longitude": "47.2"}, "latitude", "outside_departement"),
        ({"latitude": "0", "longitude": "0"}, "latitude", "outside_departement"),
        ({"latitude": "47,2"}, "latitude", "malformed"),
        ({"latitude": "nan"}, "latitude", "malformed"),
        ({"longitude": ""}, "longitude", "malformed"),
        ({"nom": "=HYPERLINK(1)"}, "nom", "formula"),
        ({"nom": "@SUM(1)"}, "nom", "formula"),
        ({"nom": "\t=1+1"}, "nom", "formula"),
        ({"adresse": "+33 1"}, "adresse", "formula"),
        ({"adresse": "-2+3"}, "adresse", "formula"),
        ({"commune": "=1"}, "commune", "formula"),
        ({"nom": "Lieu\x07"}, "nom", "control_characters"),
        ({"nom": "Lieu\x00"}, "nom", "control_characters"),
        ({"nom": "Lieu\u202egro.live"}, "nom", "direction_override"),
        ({"nom": "x" * 201}, "nom", "too_long"),
        ({"nom": "Lieu\udcff"}, "nom", "bad_encoding"),
        ({"pivot": "\udce9"}, "pivot", "bad_encoding"),
    ],
)
def test_a_bad_row_is_rejected_and_the_next_one_taken(
    changes: dict[str, str], field: str, code: str
) -> None:
    source = read_text(table(STANDARD, changes, {}))
    rejected = [each for each in found(source.findings) if each[1] == "rejected"]
    assert (2, "rejected", field, code) in rejected
    assert {line for line, *_ in rejected} == {2}
    assert [line for line, _ in source.places] == [3]


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"horaires": "lundi de 9h à 12h"}, "horaires", "unreadable_hours"),
        ({"latitude": "", "longitude": ""}, "latitude", "missing"),
        ({"adresse": ""}, "adresse", "missing"),
        ({"code_insee": "0null"}, "code_insee", "malformed"),
        ({"code_insee": ""}, "code_insee", "missing"),
        ({"code_postal": "35000"}, "code_postal", "other_departement"),
        ({"nom": "Fresnes-LÃ©guillon"}, "nom", "repaired_encoding"),
    ],
)
def test_a_poor_row_is_taken_with_a_warning(changes: dict[str, str], field: str, code: str) -> None:
    source = read_text(table(STANDARD, changes))
    assert found(source.findings) == [(2, "warning", field, code)]
    assert len(source.places) == 1


def test_garbled_names_are_repaired() -> None:
    source = read_text(table(STANDARD, {"nom": "Trie-ChÃ¢teau"}, {"nom": "Ã Ciel Ouvert Â"}))
    assert [details.name for _, details in source.places] == ["Trie-Château", "Ã Ciel Ouvert Â"]


def test_of_two_rows_with_the_same_identifier_the_first_is_taken() -> None:
    source = read_text(table(STANDARD, {"id": "a"}, {"id": "b"}, {"id": "a", "nom": "Autre"}))
    assert [details.external_id for _, details in source.places] == ["a", "b"]
    (finding,) = source.findings
    assert (finding.line, finding.code, finding.message) == (
        4,
        "duplicate",
        "the identifier of line 2",
    )


def test_a_row_with_too_many_or_too_few_cells() -> None:
    text = table(STANDARD, {}, {}, {})
    lines = text.splitlines()
    lines[1] += ",extra"
    lines[2] = lines[2].rsplit(",", 1)[0]
    source = read_text("\n".join(lines))
    assert found(source.findings) == [
        (2, "rejected", "row", "wrong_number_of_cells"),
        (3, "rejected", "row", "wrong_number_of_cells"),
    ]
    assert [line for line, _ in source.places] == [4]


def test_unknown_columns_are_named_and_not_read() -> None:
    text = (
        table(STANDARD, {}).replace("itinerance", "itinerance,humeur").replace("Fixe", "Fixe,bon")
    )
    source = read_text(text)
    assert found(source.findings) == [(1, "warning", "humeur", "unknown_column")]
    assert len(source.places) == 1


# --- whole files


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "a,b,c\n1,2,3\n",
        table(STANDARD, {}).replace("itinerance", "nom"),
        table(STANDARD, {}) + '"never closed\n1,2,3\n',
    ],
)
def test_a_file_that_is_none_is_refused_whole(text: str) -> None:
    with pytest.raises(UnreadableFile):
        read_text(text)


def test_a_format_that_was_asked_for_must_fit() -> None:
    with pytest.raises(UnreadableFile, match="lacks the columns"):
        read_text(table(STANDARD, {}), "cget")


def test_bytes(tmp_path: Path) -> None:
    file = tmp_path / "lieux.csv"
    text = table(STANDARD, {"nom": "Médiathèque"})
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(read_file(file).places) == 1
    file.write_bytes(text.encode("cp1252"))
    assert {each.code for each in read_file(file).findings} == {"bad_encoding"}
    assert len(read_file(file, encoding="cp1252").places) == 1
    file.write_bytes(text.replace(",", ";").replace("\n", "\r\n").encode())
    assert len(read_file(file).places) == 1
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(UnreadableFile, match="UTF-16"):
        read_file(file)
    with pytest.raises(UnreadableFile, match="cannot be opened"):
        read_file(tmp_path / "none.csv")
    file.write_bytes(b"\xe9")
    with pytest.raises(UnreadableFile, match="cannot be read as"):
        read_bytes(file, "klingon")


@given(st.text(max_size=200), st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text: str, cell: str) -> None:
    for content in (text, table(STANDARD, {"nom": cell, "horaires": cell, "latitude": cell})):
        try:
            source = read_text(content)
        except UnreadableFile:
            continue
        assert len(source.places) <= source.rows


# --- weekly hours


@pytest.mark.parametrize(
    ("texts", "expression"),
    [
        ({}, None),
        ({"Mo": "-", "Tu": "00:00 - 00:00"}, None),
        ({"Mo": "09:00 - 12:00"}, "Mo 09:00-12:00"),
        ({"Mo": "09:00-12:00 / 09:00 - 12:00"}, "Mo 09:00-12:00"),
        ({"Mo": "14:00-17:00/09:00-12:00"}, "Mo 09:00-12:00,14:00-17:00"),
        (
            {"Mo": "09:00-12:00", "Tu": "09:00-12:00", "Th": "09:00-12:00"},
            "Mo-Tu 09:00-12:00; Th 09:00-12:00",
        ),
    ],
)
def test_weekly_hours(texts: dict[str, str], expression: str | None) -> None:
    assert weekly_hours(texts) == expression


@pytest.mark.parametrize(
    "text", ["9h-12h", "08:30-12:00 / 08:30-17:00", "12:00-09:00", "09:00-25:00", "٠٩:٠٠-١٢:٠٠"]
)
def test_contradictory_hours(text: str) -> None:
    with pytest.raises(Contradiction) as caught:
        weekly_hours({"Tu": text})
    assert caught.value.day == "Tu"


# --- report


def test_the_report_is_safe_to_open_in_a_spreadsheet(tmp_path: Path) -> None:
    source = read_text(table(STANDARD, {"nom": "=cmd|' /C calc'!A0"}, {"nom": "\udcff"}))
    write_report(tmp_path / "report.csv", {"rows": 2}, source.findings)
    text = (tmp_path / "report.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["line"], row["field"], row["code"]) for row in rows] == [
        ("2", "nom", "formula"),
        ("3", "nom", "bad_encoding"),
    ]
    assert rows[0]["value"].startswith("'=")
    write_report(tmp_path / "report.json", {"rows": 2}, source.findings)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert document["rows"] == 2
    assert [each["line"] for each in document["findings"]] == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.csv", "report.json"]
