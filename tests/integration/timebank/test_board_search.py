"""Finding on the board: French words however they are written, near, and only for who may see."""

from typing import Any

import pytest

from common.ids import new_id

LISTINGS = {
    "velo": {"title": "Réparation de vélos", "category": "repair", "what": "service"},
    "jardin": {"title": "Jardinage et taille de haies", "category": "garden", "what": "service"},
    "perceuse": {
        "title": "Perceuse à percussion",
        "text": "Avec les mèches. Idéale pour le béton.",
        "category": "tools",
        "what": "lend",
    },
    "enfants": {"title": "Garde d'enfants le mercredi", "category": "childcare", "what": "service"},
    "tomates": {"title": "Plants de tomates", "category": "food", "what": "surplus"},
    "piano": {
        "title": "Cours pour débutants",
        "text": "Du solfège au piano, à l'œil et à l'oreille.",
        "category": "music",
        "what": "service",
        "skills": ["piano", "solfege"],
    },
}


async def publish(caller: Any, **fields: Any) -> Any:
    body = {
        "kind": "offer",
        "what": "service",
        "title": "Un coup de main",
        "category": "other",
        **fields,
    }
    return await caller.post("listings", body)


@pytest.fixture
async def board(bank: Any) -> dict[str, str]:
    """What Anna offers in Nantes: name → listing_id."""
    ids = {}
    for name, fields in LISTINGS.items():
        answer = await publish(bank.caller("anna"), **fields)
        assert answer.status_code == 201, answer.text
        ids[name] = answer.json()["listing_id"]
    return ids


async def find(bank: Any, board: dict[str, str], q: str, **more: Any) -> list[str]:
    """The names of what Bruno finds, in the order."""
    answer = await bank.caller("bruno").get("listings", q=q, **more)
    assert answer.status_code == 200, answer.text
    names = {listing_id: name for name, listing_id in board.items()}
    return [names[hit["listing"]["listing_id"]] for hit in answer.json()["items"]]


QUERIES = {
    "velo": ("vélo", "velos", "VÉLOS", "réparer", "réparation", "reparations"),
    "jardin": ("jardinage", "jardinnage", "jardiner"),
    "perceuse": ("perceuse", "perçeuse", "perseuses", "« perceuse »"),
    "enfants": ("garde d'enfants", "garde d’enfant", "gardes enfants"),
    "tomates": ("tomate", "plants de tomates"),
    "piano": ("œil", "oeil", "solfege"),
}


async def test_words_are_found_however_they_are_written(bank: Any, board: dict[str, str]) -> None:
    for name, queries in QUERIES.items():
        found = {query: await find(bank, board, query) for query in queries}
        assert found == {query: [name] for query in queries}


async def test_a_hit_says_why(bank: Any, board: dict[str, str]) -> None:
    async def reasons(query: str) -> list[tuple[str, str]]:
        answer = (await bank.caller("bruno").get("listings", q=query)).json()
        (hit,) = answer["items"]
        return [(reason["word"], reason["found_in"]) for reason in hit["reasons"]]

    assert await reasons("jardinnage") == [("jardinnage", "similar")]
    assert await reasons("vélos") == [("velo", "title")]
    assert await reasons("perceuse à béton") == [("perceuse", "title"), ("beton", "text")]
    assert await reasons("bricolage") == [("bricolage", "skill")]  # the word of its category
    assert await reasons("solfège") == [("solfege", "skill")]


async def test_most_of_many_words_are_enough_and_all_of_two(
    bank: Any, board: dict[str, str]
) -> None:
    assert await find(bank, board, "je cherche quelqu'un pour réparer mon vélo rouge") == []
    assert await find(bank, board, "je cherche pour réparer mon vélo rouge") == ["velo"]
    assert await find(bank, board, "réparer vélo") == ["velo"]
    assert await find(bank, board, "réparer tomates") == []


async def test_what_says_more_comes_first(bank: Any, board: dict[str, str]) -> None:
    anna = bank.caller("anna")
    in_text = await publish(anna, title="Bricolage", text="Je prête aussi une perceuse")
    near_so = await publish(anna, title="Berceuses du soir", category="music")
    ids = board | {
        "in_text": in_text.json()["listing_id"],
        "near_so": near_so.json()["listing_id"],
    }
    assert await find(bank, ids, "perceuse") == ["perceuse", "in_text", "near_so"]


SAY_NOTHING = ["le la les de du", "'", '""', "!!!", "& | ! ( ) :* <->", "%", "_", "\\", "à", "l'"]
ODD = [
    "vélo' OR 1=1 --",
    "vélo & !chat | (x:*",
    "vélo:*A <-> x",
    "'; DROP TABLE listing; --",
    "\\'vélo\\'",
    "𝓿é𝓵𝓸 🚲 велосипед 自転車",
    "½ ² ª ß ǅ ﬁ",
    "é" * 200,
    "a b " * 50,
    "1e400 0x10 3.14 1_000 -5 100€",
    "\u202evélo\u202c",
    "http://example.org/x?y=z foo@bar.org /etc/passwd",
    "\u0301\u0301",
]


async def test_what_says_nothing_finds_nothing(bank: Any, board: dict[str, str]) -> None:
    for query in SAY_NOTHING:
        answer = await bank.caller("bruno").get("listings", q=query)
        assert (query, answer.status_code, answer.json()) == (
            query,
            200,
            {"words": [], "items": [], "next": None},
        )


async def test_no_query_and_no_title_breaks_the_search(bank: Any, board: dict[str, str]) -> None:
    bruno = bank.caller("bruno")
    for query in ODD:
        answer = await bruno.get("listings", q=query)
        assert (query, answer.status_code) == (query, 200)
        listed = await publish(bank.caller("anna"), title=query)
        assert (query, listed.status_code in {201, 422}) == (query, True)
        if listed.status_code == 201 and answer.json()["words"]:
            found = (await bruno.get("listings", q=query)).json()["items"]
            assert listed.json()["listing_id"] in {hit["listing"]["listing_id"] for hit in found}
    assert (await bruno.get("listings", q="velo")).json()["items"]


async def test_too_long_a_query_is_refused(bank: Any) -> None:
    answer = await bank.caller("bruno").get("listings", q="é" * 201)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.q")


async def test_pages_join_without_gap_or_double(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    ids = [
        (await publish(anna, title="Vélo" if number % 2 else "Vélo vélo rouge",
                       latitude=47.2 + number // 3 / 1000, longitude=-1.55)).json()["listing_id"]
        for number in range(9)
    ]  # fmt: skip
    asked: tuple[dict[str, Any], ...] = (
        {},
        {"q": "velo"},
        {"lat": 47.2, "lon": -1.55},
        {"q": "velo rouge", "lat": 47.2, "lon": -1.55},
    )
    for params in asked:
        whole = (await bruno.get("listings", **params)).json()["items"]
        seen: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await bruno.get("listings", limit=2, **params, **cursor)).json()
            seen += page["items"]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert seen == whole
        count = 5 if "rouge" in params.get("q", "") else 9
        assert len({hit["listing"]["listing_id"] for hit in seen}) == len(seen) == count
    newest_first = (await bruno.get("listings")).json()["items"]
    assert [hit["listing"]["listing_id"] for hit in newest_first] == ids[::-1]
    for cursor_value in ("x", "WzEsMiwzXQ==", "W10=", "bnVsbA==", "WzEsMiwibm8iXQ=="):
        assert (await bruno.get("listings", cursor=cursor_value)).status_code == 422


async def test_the_nearer_comes_first_and_the_point_is_kept_roughly(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    far = await publish(anna, title="Loin", latitude=47.25, longitude=-1.55)
    near = await publish(anna, title="Près", latitude=47.21837123, longitude=-1.55362198)
    nowhere = await publish(anna, title="Nulle part")
    assert (near.json()["latitude"], near.json()["longitude"]) == (47.218, -1.554)
    hits = (await bruno.get("listings", lat=47.2184, lon=-1.5536)).json()["items"]
    assert [hit["listing"]["listing_id"] for hit in hits] == [
        answer.json()["listing_id"] for answer in (near, far, nowhere)
    ]
    assert hits[0]["distance_m"] == pytest.approx(54, abs=3)
    assert hits[1]["distance_m"] == pytest.approx(3524, abs=15)
    assert hits[2]["distance_m"] is None
    within = (await bruno.get("listings", lat=47.2184, lon=-1.5536, radius_m=1000)).json()
    assert len(within["items"]) == 1
    for wrong in ({"lat": 1}, {"radius_m": 5}, {"lat": 91, "lon": 0}, {"lat": "nan", "lon": 0}):
        assert (await bruno.get("listings", **wrong)).status_code == 422


async def test_filters_narrow(bank: Any, board: dict[str, str]) -> None:
    async def names(**filters: Any) -> set[str]:
        answer = await bank.caller("bruno").get("listings", **filters)
        ids = {hit["listing"]["listing_id"] for hit in answer.json()["items"]}
        return {name for name, listing_id in board.items() if listing_id in ids}

    await bank.caller("anna").patch(f"listings/{board['piano']}", {"price_minutes": 60})
    assert await names(what="lend") == {"perceuse"}
    assert await names(category="food") == {"tomates"}
    assert await names(skill="piano") == {"piano"}
    assert await names(free="false") == {"piano"}
    assert await names(free="true") == set(board) - {"piano"}
    assert await names(kind="need") == set()
    assert await names(city_id="nantes") == set(board)
    assert await names(city_id="bourges") == set()


async def test_another_city_sees_what_is_for_the_federation(bank: Any) -> None:
    anna, chloe = bank.caller("anna"), bank.caller("chloe", "bourges")
    for_city = (await publish(anna, title="Vélo de ville")).json()["listing_id"]
    for_all = await publish(anna, title="Vélo de route", visibility="federation")
    hits = (await chloe.get("listings", q="vélo")).json()["items"]
    assert [hit["listing"]["listing_id"] for hit in hits] == [for_all.json()["listing_id"]]
    assert (await chloe.get(f"listings/{for_all.json()['listing_id']}")).status_code == 200
    hidden, absent = [
        await chloe.get(f"listings/{listing_id}") for listing_id in (for_city, new_id())
    ]
    assert (hidden.status_code, hidden.json()) == (404, absent.json())
    # Its owner decides anew, at any time.
    await anna.patch(f"listings/{for_city}", {"visibility": "federation"})
    assert (await chloe.get(f"listings/{for_city}")).status_code == 200


async def test_what_is_closed_or_changed_is_found_as_it_is_now(
    bank: Any, board: dict[str, str]
) -> None:
    anna = bank.caller("anna")
    await anna.patch(f"listings/{board['velo']}", {"title": "Réparation de trottinettes"})
    assert await find(bank, board, "vélo") == []
    assert await find(bank, board, "trottinette") == ["velo"]
    assert (await anna.post(f"listings/{board['velo']}/close")).status_code == 200
    assert await find(bank, board, "trottinette") == []
    assert (await anna.post(f"listings/{board['velo']}/reopen")).status_code == 200
    assert await find(bank, board, "trottinette") == ["velo"]
