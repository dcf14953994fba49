"""Lives of exchanges over HTTP, several at once: whatever people do in whatever order, no answer
is a failure, nothing is held for what has ended, and every minute is where the agreements say."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

from board_world import assert_sound, day, publish

STEPS = (
    "agree",
    "decline",
    "cancel",
    "done",
    "handed-over",
    "returned",
    "damaged",
    "accept",
    "rule",
)
PEOPLE = ("anna", "bruno", "dora")
NEXT = {
    "requested": ("agree",),
    "agreed": ("done", "handed-over"),
    "handed_over": ("returned", "damaged"),
    "claimed": ("accept", "rule", "returned"),
}
REFUSED = {
    "forbidden", "wrong_step", "nothing_left", "insufficient_time", "exceeds_deposit",
    "object_taken", "object_out", "already_requested", "own_listing", "hold_bound",
}  # fmt: skip


async def walk(bank: Any, listings: list[tuple[str, str]], seed: int, seen: Counter[str]) -> None:
    """One person after the other does something that the board may refuse."""
    random = Random(seed)
    mediator = bank.caller("mediator", "nantes", "mediator")
    names = {member_id: name for name, member_id in bank.members.items()}
    for _ in range(70):
        running = await bank.pool.fetch(
            "SELECT * FROM exchange WHERE ended_at IS NULL ORDER BY exchange_id"
        )
        if not running or random.random() < 0.2:
            listing_id, what = random.choice(listings)
            days = random.randint(0, 3)
            body: dict[str, Any] = {"minutes": random.choice([0, 20])}
            if what == "lend":
                body |= {"from": day(days), "until": day(days + 1)}
            if what == "surplus":
                body |= {"quantity": random.randint(1, 2)}
            caller = bank.caller(random.choice(PEOPLE))
            answer = await caller.post(f"listings/{listing_id}/requests", body)
        else:
            exchange = random.choice(running)
            name = random.choice(NEXT[exchange["status"]] if random.random() < 0.8 else STEPS)
            sides = [names[exchange["giver_id"]], names[exchange["receiver_id"]]]
            caller = bank.caller(random.choice([*sides, *sides, *sides, *PEOPLE]))
            answer = await (mediator if name == "rule" else caller).post(
                f"exchanges/{exchange['exchange_id']}/{name}",
                {"minutes": random.randint(1, 130)} if name in {"damaged", "rule"} else None,
            )
        if answer.is_success:
            seen[answer.json()["status"]] += 1
        else:
            assert answer.json()["code"] in REFUSED, answer.text


async def test_whatever_happens_the_books_and_the_board_agree(bank: Any) -> None:
    await bank.join("dora", "nantes")
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listings = [
        (await publish(anna, price_minutes=30), "service"),
        (await publish(bruno, kind="need", price_minutes=30), "service"),
        (await publish(anna, what="lend", deposit_minutes=120, price_minutes=5), "lend"),
        (await publish(bruno, what="lend", deposit_minutes=40), "lend"),
        (await publish(anna, what="surplus", quantity=4, price_minutes=5), "surplus"),
    ]
    seen: Counter[str] = Counter()
    await asyncio.gather(*(walk(bank, listings, seed, seen) for seed in range(4)))
    await assert_sound(bank)
    # It went far enough to mean something.
    assert {"agreed", "done"} <= set(seen)
    rows = await bank.pool.fetch("SELECT * FROM exchange")
    moved: Counter[Any] = Counter()
    for row in rows:
        paid = row["contribution_id"] or row["transfer_id"]
        assert (paid is not None) == (
            row["minutes"] > 0
            and row["status"] in {"done", "handed_over", "claimed", "returned", "settled"}
        )
        minutes = (row["minutes"] if paid else 0) + (row["settled_minutes"] or 0)
        moved[row["giver_id"]] += minutes
        moved[row["receiver_id"]] -= minutes
    held: Counter[Any] = Counter()
    for row in rows:
        if row["status"] == "agreed":
            held[row["receiver_id"]] += row["minutes"]
        if row["status"] in {"agreed", "handed_over", "claimed"}:
            held[row["receiver_id"]] += row["deposit_minutes"]
    accounts = await bank.pool.fetch(
        "SELECT owner_id, balance_minutes, held_minutes FROM account WHERE kind = 'member'"
    )
    for account in accounts:
        assert account["balance_minutes"] == moved[account["owner_id"]]
        assert account["held_minutes"] == held[account["owner_id"]]
    # Every change was told, each with the next version.
    told = await bank.pool.fetch(
        "SELECT key, array_agg((payload ->> 'version')::int ORDER BY id) AS versions,"
        " (array_agg(payload ->> 'status' ORDER BY id DESC))[1] AS last FROM outbox"
        " WHERE topic = 'timebank.exchanges.v1' GROUP BY key"
    )
    assert {item["key"]: item["last"] for item in told} == {
        str(row["exchange_id"]): row["status"] for row in rows
    }
    for item in told:
        assert item["versions"] == list(range(1, len(item["versions"]) + 1))
