"""Listings: who lists what, at which terms, for whom to see; what answers them; their erasure."""

from typing import Any

from board_world import ask, assert_sound, day, held, notices, problem, publish, step

from common.ids import new_id
from timebank.board import service, store


async def events(bank: Any, topic: str) -> list[dict[str, Any]]:
    rows = await bank.pool.fetch("SELECT payload FROM outbox WHERE topic = $1 ORDER BY id", topic)
    return [row["payload"] for row in rows]


FULL = {
    "kind": "offer",
    "what": "lend",
    "title": "Remorque à vélo",
    "text": "Attache comprise",
    "category": "transport",
    "skills": ["velo"],
    "latitude": 47.218371,
    "longitude": -1.553621,
    "schedule": {
        "text": "sauf vacances",
        "slots": [
            {"weekday": 2, "from": "09:30", "until": "12:00"},
            {"weekday": 6, "from": "00:00", "until": "24:00"},
        ],
    },
    "price_minutes": 15,
    "deposit_minutes": 120,
    "visibility": "federation",
}


async def test_a_listing_is_kept_as_it_was_said(bank: Any) -> None:
    anna = bank.caller("anna")
    own_id = str(new_id())
    body = {**FULL, "listing_id": own_id, "available_until": day(0)}
    answer = await anna.post("listings", body, key="k")
    assert answer.status_code == 201
    seen = answer.json()
    assert {name: seen[name] for name in FULL} == {
        **FULL,
        "latitude": 47.218,
        "longitude": -1.554,
    }
    assert (seen["listing_id"], seen["status"], seen["version"]) == (own_id, "open", 1)
    assert (seen["owner_id"], seen["city_id"]) == (str(bank.members["anna"]), "nantes")
    assert (await anna.post("listings", body, key="k")).json() == seen
    assert problem(await anna.post("listings", body)) == (422, "listing_id_reused")
    assert (await bank.caller("chloe", "bourges").get(f"listings/{own_id}")).json() == seen
    (event,) = await events(bank, "timebank.listings.v1")
    assert (event["listing_id"], event["version"], event["visibility"]) == (own_id, 1, "federation")
    # No words, and not where it is.
    assert not {"title", "text", "latitude", "longitude", "schedule"} & set(event)
    assert "Remorque" not in str(event)


async def test_what_is_no_listing_is_refused_and_names_its_field(bank: Any) -> None:
    anna = bank.caller("anna")
    base = {"kind": "offer", "what": "service", "title": "x", "category": "other"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"title": ""}, "body.title"),
        ({"title": "a\u202eb"}, "body.title"),
        ({"title": "x" * 201}, "body.title"),
        ({"category": "weapons"}, "body.category"),
        ({"skills": ["Vélo"]}, "body.skills.0"),
        ({"skills": ["velo", "velo"]}, "body.skills"),
        ({"skills": [f"s{number}" for number in range(11)]}, "body.skills"),
        ({"price_minutes": -1}, "body.price_minutes"),
        ({"price_minutes": 1441}, "body.price_minutes"),
        ({"price_minutes": True}, "body.price_minutes"),
        ({"price_minutes": 1.5}, "body.price_minutes"),
        ({"deposit_minutes": 5}, "body.deposit_minutes"),
        ({"quantity": 5}, "body.quantity"),
        ({"what": "surplus", "quantity": 0}, "body.quantity"),
        ({"latitude": 1.0}, "body.latitude"),
        ({"latitude": 91, "longitude": 0}, "body.latitude"),
        ({"available_until": day(-1)}, "body.available_until"),
        ({"place_id": str(new_id())}, "body.place_id"),
        ({"schedule": {"slots": [{"weekday": 7, "from": "09:00", "until": "10:00"}]}},
         "body.schedule.slots.0.weekday"),
        ({"schedule": {"slots": [{"weekday": 1, "from": "10:00", "until": "09:00"}]}},
         "body.schedule.slots"),
        ({"schedule": {"slots": [{"weekday": 1, "from": "9h", "until": "10:00"}]}},
         "body.schedule.slots.0.from"),
        ({"unheard_of": 1}, "body.unheard_of"),
    ]  # fmt: skip
    for fields, field in wrong:
        answer = await anna.post("listings", base | fields)
        assert (fields, answer.status_code) == (fields, 422)
        assert (fields, answer.json()["errors"][0]["field"]) == (fields, field)
    assert (await anna.get("listings/mine")).json()["items"] == []
    stranger = bank.caller(str(new_id()))
    assert problem(await stranger.post("listings", base)) == (403, "forbidden")


async def test_a_listing_is_changed_by_its_owner_alone(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    steward = bank.caller("steward", "nantes", "steward")
    chloe = bank.caller("chloe", "bourges", "steward")
    listing_id = await publish(anna, price_minutes=30)
    path = f"listings/{listing_id}"
    for caller, status in ((bruno, 403), (steward, 403), (chloe, 404)):
        assert (await caller.patch(path, {"title": "y"})).status_code == status
    changed = (await anna.patch(path, {"title": "y", "price_minutes": 5, "text": None})).json()
    assert (changed["title"], changed["price_minutes"], changed["version"]) == ("y", 5, 2)
    same = (await anna.patch(path, {"title": "y"})).json()
    assert same["version"] == 2
    for fields, field in (({"title": None}, "title"), ({"deposit_minutes": 5}, "deposit_minutes"),
                          ({"latitude": 5}, "latitude"), ({"kind": "need"}, "kind")):  # fmt: skip
        answer = await anna.patch(path, fields)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"body.{field}")
    versions = [event["version"] for event in await events(bank, "timebank.listings.v1")]
    assert versions == [1, 2]


async def test_a_change_is_not_one_of_what_was_asked_for(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listing_id = await publish(anna, price_minutes=30)
    exchange_id = await ask(bruno, listing_id)
    await anna.patch(f"listings/{listing_id}", {"price_minutes": 600})
    assert (await step(anna, exchange_id, "agree"))["minutes"] == 30
    assert await held(bank, "bruno") == 30


async def test_a_closed_listing_declines_who_waits_and_keeps_what_was_agreed(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    await bank.join("dora", "nantes")
    dora, chloe = bank.caller("dora"), bank.caller("chloe", "bourges")
    listing_id = await publish(anna, visibility="federation")
    path = f"listings/{listing_id}"
    agreed, waiting = await ask(bruno, listing_id), await ask(dora, listing_id)
    await step(anna, agreed, "agree")
    assert problem(await bruno.post(f"{path}/close")) == (403, "forbidden")
    closed = (await anna.post(f"{path}/close")).json()
    assert (closed["status"], closed["closed_because"]) == ("closed", "owner")
    assert (await dora.get(f"exchanges/{waiting}")).json()["status"] == "declined"
    assert ("dora", "exchange.declined") in await notices(bank)
    await step(bruno, agreed, "done")
    # Nobody else sees it any more, nor may they ask for it.
    for caller in (dora, chloe):
        assert problem(await caller.get(path)) == (404, "not_found")
        assert problem(await caller.post(f"{path}/requests", {})) == (404, "not_found")
    assert problem(await anna.post(f"{path}/close")) == (409, "listing_closed")
    assert problem(await anna.patch(path, {"title": "y"})) == (409, "listing_closed")
    assert (await anna.post(f"{path}/reopen")).json()["status"] == "open"
    assert problem(await anna.post(f"{path}/reopen")) == (409, "listing_open")


async def test_what_a_steward_closed_stays_closed_to_its_owner(bank: Any) -> None:
    anna, steward = bank.caller("anna"), bank.caller("steward", "nantes", "steward")
    path = f"listings/{await publish(anna)}"
    other = bank.caller("other", "bourges", "steward")
    assert problem(await other.post(f"{path}/close")) == (404, "not_found")
    assert (await steward.post(f"{path}/close")).json()["closed_because"] == "steward"
    assert problem(await anna.post(f"{path}/reopen")) == (403, "forbidden")
    mine = (await anna.get("listings/mine", status="closed")).json()["items"]
    assert [item["closed_because"] for item in mine] == ["steward"]


async def test_open_listings_are_bounded(bank: Any) -> None:
    anna = bank.caller("anna")
    first = await publish(anna)
    await anna.post(f"listings/{first}/close")
    await bank.pool.execute(
        "INSERT INTO listing (listing_id, city_id, owner_kind, owner_id, kind, what, title,"
        " category, skills, price_minutes, deposit_minutes, visibility, status, listed_by,"
        " created_at, version, search, words)"
        " SELECT gen_random_uuid(), 'nantes', 'member', $1, 'offer', 'service', 'x', 'other', '{}',"
        " 0, 0, 'city', 'open', 'x', now(), 1, '', '' FROM generate_series(1, 200)",
        bank.members["anna"],
    )
    body = {"kind": "offer", "what": "service", "title": "x", "category": "other"}
    assert problem(await anna.post("listings", body)) == (409, "too_many_listings")
    assert problem(await anna.post(f"listings/{first}/reopen")) == (409, "too_many_listings")
    page = (await anna.get("listings/mine", limit=150)).json()
    rest = (await anna.get("listings/mine", limit=150, cursor=page["next"])).json()
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (150, 51, None)


async def test_matches_say_why_and_the_other_side_is_told(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    await bank.join("dora", "nantes")
    piano = {"category": "music", "skills": ["piano"]}
    need = await publish(bruno, kind="need", title="Apprendre le piano", **piano)
    weak = await publish(bank.caller("dora"), kind="need", title="Un accordéon", category="music")
    hidden = await publish(bank.caller("chloe", "bourges"), title="Cours de piano", **piano)
    assert ("bruno", "listing.match") not in await notices(bank)
    offer = await publish(anna, title="Cours de piano", **piano)
    # Who is told: those with a skill in common, once; not those of a category alone.
    assert await notices(bank) == [("bruno", "listing.match")]
    (match,) = (await bruno.get(f"listings/{need}/matches")).json()["items"]
    assert (match["listing"]["listing_id"], match["points"]) == (offer, 65)
    assert {reason["code"]: reason["value"] for reason in match["reasons"]} == {
        "skill": "piano",
        "category": "music",
        "words": "piano",
        "same_city": "nantes",
        "price": "0",
    }
    mine = (await anna.get("matches")).json()["items"]
    assert [(item["your_listing_id"], item["listing"]["listing_id"]) for item in mine] == [
        (offer, need),
        (offer, weak),
    ]
    # Of another city: only when both are for the federation.
    assert hidden not in {item["listing"]["listing_id"] for item in mine}
    assert problem(await anna.get(f"listings/{need}/matches")) == (404, "not_found")
    await anna.post(f"listings/{offer}/close")
    assert (await bruno.get("matches")).json() == {"items": []}


async def test_one_who_leaves_is_exported_and_forgotten(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    secret = "Chez Anna, 3 rue des Lilas"
    listing_id = await publish(anna, title=secret, text=secret, price_minutes=30, latitude=47.0,
                               longitude=0.0, schedule={"text": secret})  # fmt: skip
    need = await publish(bruno, kind="need", what="lend", deposit_minutes=60)
    surplus = await publish(bruno, what="surplus", quantity=2)
    agreed = await ask(bruno, listing_id, message=secret)
    await step(anna, agreed, "agree")
    lent = await ask(anna, need, message=secret, **{"from": day(0), "until": day(0)})
    await step(bruno, lent, "agree")
    await step(bruno, lent, "handed-over")
    await step(anna, lent, "damaged", {"minutes": 5, "note": secret})
    taken = await ask(anna, surplus, message=secret)
    await step(bruno, taken, "agree")
    assert await held(bank, "bruno") == 90
    anna_id = bank.members["anna"]
    async with bank.pool.acquire() as conn:
        export = await store.export_of(conn, anna_id)
    assert [row["title"] for row in export["listings"]] == [secret]
    assert {str(row["exchange_id"]) for row in export["exchanges"]} == {agreed, lent, taken}
    async with bank.pool.acquire() as conn, conn.transaction():
        await service.forget(conn, anna_id, bank.app.state.clock())
        await service.forget(conn, anna_id, bank.app.state.clock())
    assert await held(bank, "bruno") == 0
    kept = await bank.pool.fetch(
        "SELECT (l.*)::text AS row FROM listing l UNION ALL SELECT (e.*)::text FROM exchange e"
    )
    assert [row["row"] for row in kept if "Lilas" in row["row"] or "lila" in row["row"]] == []
    ended = await bank.pool.fetch("SELECT exchange_id, status FROM exchange")
    assert {str(row["exchange_id"]): row["status"] for row in ended} == {
        agreed: "cancelled",
        lent: "returned",
        taken: "cancelled",
    }
    left = (await bruno.get(f"listings/{surplus}")).json()["quantity_left"]
    assert left == 2
    last = (await events(bank, "timebank.listings.v1"))[-1]
    assert (last["listing_id"], last["status"]) == (listing_id, "closed")
    assert problem(await anna.post(f"listings/{listing_id}/reopen")) == (409, "listing_closed")
    await assert_sound(bank)
