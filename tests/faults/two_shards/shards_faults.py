"""What happens to the two time banks, one thing after the other, and that it passes."""

import asyncio
import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shards_world import World

DOWN_MAX_S = 3.0
PAUSE_S = 20.0


@dataclass(frozen=True)
class Fault:
    """`kill -9` of some processes at once, or SIGSTOP. Killed databases lose nothing, the broker
    everything."""

    kind: str
    victims: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' and '.join(self.victims)}"


WORKERS = ("west-worker", "centre-worker")
DATABASES = ("west-postgres", "centre-postgres")
APIS = ("west-api", "centre-api")
EACH = (*WORKERS, *DATABASES, "broker", *APIS)
TOGETHER = (
    ("broker", "west-worker"),
    ("centre-postgres", "west-worker"),
    ("west-postgres", "centre-postgres"),
    ("broker", "centre-postgres"),
    WORKERS,
)


def kills(victims: Iterable[str]) -> list[Fault]:
    return [Fault("kill", (name,)) for name in victims]


def smoke(dice: random.Random) -> list[Fault]:
    """A worker, a database and the broker, in any order."""
    plan = kills((dice.choice(WORKERS), dice.choice(DATABASES), "broker"))
    dice.shuffle(plan)
    return plan


def matrix(dice: random.Random) -> list[Fault]:
    """Everything: each alone, some at once, some that only stop for a while."""
    plan = kills(EACH)
    plan += [Fault("kill", victims) for victims in TOGETHER]
    plan += [Fault("pause", (name,)) for name in dice.sample(EACH, 4)]
    dice.shuffle(plan)
    return plan


async def strike(world: World, fault: Fault, dice: random.Random) -> None:
    """Do it, and undo it: all runs again afterwards."""
    parts = [world.parts[name] for name in fault.victims]
    if fault.kind == "pause":
        for part in parts:
            part.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_S)
        finally:
            for part in parts:
                part.signal(signal.SIGCONT)
        return
    for part in parts:
        part.kill()
    await asyncio.sleep(dice.uniform(0, DOWN_MAX_S))
    await asyncio.gather(*(part.start() for part in parts))


async def strike_all(
    world: World,
    plan: Iterable[Fault],
    dice: random.Random,
    calm_s: tuple[float, float],
    say: Callable[[str], None],
) -> None:
    for fault in plan:
        await asyncio.sleep(dice.uniform(*calm_s))
        say(str(fault))
        await strike(world, fault, dice)
