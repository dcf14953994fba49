"""What the steps of the story share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from copass.demo_api import TapAnswer


class Lang(StrEnum):
    fr = "fr"
    en = "en"


class Failed(Exception):
    """A step did not hold; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class Step:
    """A title by language, and what tells it, given the story: the words, or Failed."""

    title: Mapping[str, str]
    tell: Callable[[Any], Awaitable[str]]


def expect(answer: TapAnswer, decision: str, reason: str) -> TapAnswer:
    if (answer.decision, answer.reason) != (decision, reason):
        raise Failed(f"{answer.decision} ({answer.reason}) ≠ {decision} ({reason})")
    return answer
