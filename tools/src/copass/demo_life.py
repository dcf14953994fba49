"""The part of the story that is about time: pledges, offers and needs, help, a statement.

Every step gives back what it took, so the story can be told any number of times.
"""

from __future__ import annotations

import asyncio
import csv
import io
import time
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from copass.demo_api import ApiError, Login
from copass.demo_data import Member
from copass.demo_life_data import LATE, listing_id
from copass.demo_state import login_of, steward_of
from copass.demo_story import Failed, Step, expect

if TYPE_CHECKING:
    from copass.demo import Story

CITY = "bourges"
GOOD_WITHIN_S = 30.0
WORK_MINUTES_MAX = 1440
HELP_MINUTES = 30
MISTYPED = "reparation de velp"


class Life:
    """The time bank as the people of the story meet it."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.ada = story.network.member("demo-traveller")
        self.remi = story.network.member("demo-resident")
        self.lise = story.network.member(LATE)
        self.steward = steward_of(CITY)

    async def get(self, path: str, who: Member | Login, **params: Any) -> dict[str, Any]:
        return await self.story.api.get("timebank", f"/v1/{path}", login(who), **params)

    async def post(
        self, path: str, who: Member | Login, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return await self.story.api.command(
            "timebank", "POST", f"/v1/{path}", body, login=login(who)
        )

    async def standing(self, member: Member) -> str:
        return str((await self.get(f"standings/{member.member_id}", member))["standing"])

    async def until_standing(self, member: Member, wanted: str) -> None:
        deadline = time.monotonic() + GOOD_WITHIN_S
        while (standing := await self.standing(member)) != wanted:
            if time.monotonic() > deadline:
                raise Failed(f"{member.name}: {standing} ≠ {wanted}")
            await asyncio.sleep(0.05)

    async def balance(self, member: Member) -> tuple[int, int]:
        """What stands on a member's account, and what is held of it."""
        account = await self.story.account(str(member.member_id))
        return int(account["balance_minutes"]), int(account["held_minutes"])

    async def forget_work(self) -> None:
        """Takes Lise's work back, whatever an earlier run left: she is late again."""
        for status, path, who in (
            ("confirmed", "reverse", self.steward),
            ("logged", "withdraw", self.lise),
        ):
            found = await self.get(
                "contributions",
                self.lise,
                member_id=self.lise.member_id,
                role="giver",
                status=status,
            )
            for item in found["items"]:
                await self.post(f"contributions/{item['contribution_id']}/{path}", who)
        await self.until_standing(self.lise, "lapsed")

    async def short_minutes(self) -> int:
        """What Lise owes of the months that are over."""
        found = await self.get("pledges", self.lise, member_id=self.lise.member_id)
        pledge = await self.get(f"pledges/{found['items'][0]['pledge_id']}", self.lise)
        late = [month for month in pledge["periods"] if month["state"] in ("grace", "lapsed")]
        return sum(int(month["short_minutes"]) for month in late)


def login(who: Member | Login) -> Login:
    return who if isinstance(who, Login) else login_of(who)


async def behind(story: Story) -> str:
    life = Life(story)
    await life.forget_work()
    card = story.network.card_of(LATE)
    await story.unblock(card)
    away = await story.until(story.door("demo-night"), card.uid, "deny")
    expect(away, "deny", "standing_lapsed")
    home = await story.tap(story.door("house-bourges", "private"), card.uid)
    expect(home, "grant", "resident")
    return story.say(
        f"{await life.short_minutes()} minutes en retard. À Nantes : {story.quote(away)}."
        f" Chez elle : {story.quote(home)}",
        f"{await life.short_minutes()} minutes behind. In Nantes: {story.quote(away)}."
        f" At home: {story.quote(home)}",
    )


async def caught_up(story: Story) -> str:
    life = Life(story)
    await life.forget_work()
    minutes = min(await life.short_minutes(), WORK_MINUTES_MAX)
    body = {
        "beneficiary": {"kind": "commons"},
        "minutes": minutes,
        "performed_on": today().isoformat(),
        "activity": "cooking",
    }
    logged = await life.post("contributions", life.lise, body)
    path = f"contributions/{logged['contribution_id']}/confirm"
    version = {"version": logged["version"]}
    try:
        await life.post(path, life.lise, version)
    except ApiError as error:
        if error.code != "self_confirmation":
            raise
    else:
        raise Failed("she confirmed what she did herself")
    try:
        await life.post(path, life.remi, version)
        if short := await life.short_minutes():
            raise Failed(f"{short} minutes are still short")
        await life.until_standing(life.lise, "good")
        card = story.network.card_of(LATE)
        answer = await story.until(story.door("demo-night"), card.uid, "grant")
        expect(answer, "grant", "network_member")
    finally:
        await life.forget_work()
    return story.say(
        f"{minutes} minutes notées, confirmées par {life.remi.name}, promesse tenue ; à Nantes :"
        f" {story.quote(answer)}",
        f"{minutes} minutes logged, confirmed by {life.remi.name}, pledge met; in Nantes:"
        f" {story.quote(answer)}",
    )


async def found_and_done(story: Story) -> str:
    """A search with a slip of the finger, a match with its reasons, an exchange from end to end."""
    life = Life(story)
    found = (await life.get("listings", life.ada, q=MISTYPED))["items"]
    bike = str(listing_id("bike"))
    if not found or found[0]["listing"]["listing_id"] != bike:
        raise Failed(f"“{MISTYPED}” finds {[hit['listing']['title'] for hit in found]}")
    matches = (await life.get("matches", life.lise))["items"]
    match = next((one for one in matches if one["listing"]["listing_id"] == bike), None)
    if match is None:
        raise Failed("her need is not matched with his offer")
    # From the richer of the two, so that no floor is ever reached.
    before = {one.member_id: await life.balance(one) for one in (life.ada, life.remi)}
    receiver = max((life.ada, life.remi), key=lambda one: before[one.member_id][0])
    giver, key = (life.remi, "bike") if receiver is life.ada else (life.ada, "bread")
    listing = await life.get(f"listings/{listing_id(key)}", receiver)
    price = int(listing["price_minutes"])
    exchange_id = await agreed(life, listing_id(key), receiver, giver, {})
    held = before[receiver.member_id][1] + price
    await check_balance(life, receiver, before[receiver.member_id][0], held)
    done = await life.post(f"exchanges/{exchange_id}/done", receiver)
    if done["status"] != "done" or done["contribution_id"] is None:
        raise Failed(f"the exchange is {done['status']}")
    for one, minutes in ((receiver, -price), (giver, price)):
        balance, held = before[one.member_id]
        await check_balance(life, one, balance + minutes, held)
    reasons = ", ".join(reason["code"] for reason in match["reasons"])
    return story.say(
        f"« {MISTYPED} » trouve « {found[0]['listing']['title']} » ; rapprochée d’un besoin"
        f" ({reasons}). « {listing['title']} » : {giver.name} reçoit {price} minutes",
        f"“{MISTYPED}” finds “{found[0]['listing']['title']}”; matched with a need ({reasons})."
        f" “{listing['title']}”: {giver.name} receives {price} minutes",
    )


async def lent_and_returned(story: Story) -> str:
    life = Life(story)
    before, held = await life.balance(life.ada)
    days = {"from": today().isoformat(), "until": (today() + timedelta(days=1)).isoformat()}
    exchange_id = await agreed(life, listing_id("drill"), life.ada, life.remi, days)
    loan = await life.post(f"exchanges/{exchange_id}/handed-over", life.ada)
    deposit = int(loan["deposit_minutes"])
    await check_balance(life, life.ada, before, held + deposit)
    await life.post(f"exchanges/{exchange_id}/returned", life.remi)
    await check_balance(life, life.ada, before, held)
    return story.say(
        f"{deposit} minutes de caution retenues, puis libérées au retour",
        f"{deposit} minutes of deposit held, and free again on return",
    )


async def agreed(
    life: Life, listing: UUID, requester: Member, owner: Member, days: dict[str, Any]
) -> str:
    """An exchange that was asked for and agreed to; what an earlier run left of it is ended."""
    for status in ("requested", "agreed"):
        left = await life.get("exchanges", requester, listing_id=listing, status=status)
        for item in left["items"]:
            await life.post(f"exchanges/{item['exchange_id']}/cancel", requester)
    lent = await life.get("exchanges", owner, listing_id=listing, status="handed_over")
    for item in lent["items"]:
        await life.post(f"exchanges/{item['exchange_id']}/returned", owner)
    asked = await life.post(f"listings/{listing}/requests", requester, {**days})
    await life.post(f"exchanges/{asked['exchange_id']}/agree", owner)
    return str(asked["exchange_id"])


async def check_balance(life: Life, member: Member, balance: int, held: int) -> None:
    found = await life.balance(member)
    if found != (balance, held):
        raise Failed(f"{member.name}: {found} ≠ {(balance, held)} (balance, held)")


async def helped(story: Story) -> str:
    """From a giver whom nobody names to a member whom nobody can find out."""
    life = Life(story)
    before = await life.balance(life.lise)
    for item in (await life.get("solidarity/requests", life.lise, status="asked"))["items"]:
        await life.post(f"solidarity/requests/{item['request_id']}/withdraw", life.lise)
    gift = {"minutes": HELP_MINUTES, "anonymous": True}
    await life.post("solidarity/gifts", life.remi, gift)
    wanted = {"minutes": HELP_MINUTES, "for": "balance", "reason": "Une semaine difficile"}
    asked = await life.post("solidarity/requests", life.lise, wanted)
    path = f"solidarity/requests/{asked['request_id']}"
    await life.post(f"{path}/grant", life.steward, {})
    await check_balance(life, life.lise, before[0] + HELP_MINUTES, before[1])
    gifts = (await life.get("solidarity/gifts", life.ada, city_id=CITY, limit=1))["items"]
    funds = await life.get("accounts", life.ada, city_id=CITY, kind="solidarity_fund")
    account_id = funds["items"][0]["account_id"]
    lines = (await life.get(f"accounts/{account_id}/postings", life.ada, limit=2))["items"]
    try:
        await life.get(path, life.ada)
        raise Failed("a neighbour sees who asked for help")
    except ApiError as error:
        if error.status != 404:
            raise
    if gifts[0]["member_id"] is not None or any(line["transfer_id"] for line in lines):
        raise Failed("a neighbour sees who gave, or who was helped")
    back = {
        "from_account": (await story.account(str(life.lise.member_id)))["account_id"],
        "to_member": str(life.remi.member_id),
        "minutes": HELP_MINUTES,
    }
    await life.post("transfers", life.lise, back)
    return story.say(
        f"{HELP_MINUTES} minutes données sans nom, {HELP_MINUTES} accordées ; les voisins n’en"
        " voient que les minutes",
        f"{HELP_MINUTES} minutes given without a name, {HELP_MINUTES} granted; neighbours see the"
        " minutes alone",
    )


async def statement(story: Story) -> str:
    life = Life(story)
    account = await story.account(str(life.ada.member_id))
    path = f"/v1/accounts/{account['account_id']}/statement"
    text = await story.api.download("timebank", f"{path}.csv", login(life.ada))
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))
    total = sum(int(row["minutes"]) for row in rows)
    if not total == int(rows[-1]["balance_minutes"]) == account["balance_minutes"]:
        raise Failed(f"{total} ≠ {account['balance_minutes']} minutes")
    paper = await story.api.download("timebank", f"{path}.pdf", login(life.ada))
    if not paper.startswith(b"%PDF-"):
        raise Failed("the page is no PDF")
    return story.say(
        f"{len(rows)} lignes, leur somme est le solde ({total} minutes) ; en PDF :"
        f" {len(paper) // 1024} Kio",
        f"{len(rows)} lines, their sum is the balance ({total} minutes); as PDF:"
        f" {len(paper) // 1024} KiB",
    )


def today() -> date:
    """The day that it is in the city."""
    return datetime.now(ZoneInfo("Europe/Paris")).date()


LIFE_STEPS = (
    Step(
        {
            "fr": "Lise, en retard de sa promesse, reste chez elle",
            "en": "Lise, behind with her pledge, is still at home",
        },
        behind,
    ),
    Step(
        {
            "fr": "Deux heures de cuisine, et une porte s’ouvre ailleurs",
            "en": "Two hours of cooking, and a door opens elsewhere",
        },
        caught_up,
    ),
    Step(
        {"fr": "Une offre trouvée malgré une faute", "en": "An offer found despite a slip"},
        found_and_done,
    ),
    Step({"fr": "Une perceuse prêtée", "en": "A drill is lent"}, lent_and_returned),
    Step({"fr": "L’aide du fonds de solidarité", "en": "Help of the solidarity fund"}, helped),
    Step({"fr": "Un relevé de compte", "en": "An account statement"}, statement),
)
