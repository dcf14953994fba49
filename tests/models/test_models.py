"""The models of docs/models hold within their bounds, and every guard of theirs is needed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import promela
from promela import COMES_TO_REST, ENDS, SAFETY, check


def is_found(model: str, removed: str, folder: Path, how: tuple[str, ...] = SAFETY) -> bool:
    """Whether the model checker finds that the model does not hold without something."""
    checked = check(model, folder, without=(removed,), how=how)
    # A model that breaks down is no finding.
    assert "invalid array index" not in checked.output, checked.output
    assert "length<" not in checked.output, checked.output
    return checked.errors > 0


pytestmark = pytest.mark.skipif(
    promela.missing_tool() is not None,
    reason=f"{promela.missing_tool()} is missing: make models installs it",
)


@pytest.mark.parametrize(
    ("model", "kind", "states_min"),
    [("clearing", (), 10_000), ("relay", (), 100_000), ("relay", ("STATES",), 100_000)],
)
def test_a_model_holds_in_every_state(
    model: str, kind: tuple[str, ...], states_min: int, tmp_path: Path
) -> None:
    checked = check(model, tmp_path, without=kind)
    assert checked.errors == 0, checked.output
    assert checked.complete, checked.output
    # A model in which little happens holds easily.
    assert checked.states >= states_min, checked.output


def test_every_transfer_ends_once_the_wire_stops_losing(tmp_path: Path) -> None:
    checked = check("clearing", tmp_path, how=ENDS)
    assert checked.errors == 0, checked.output
    assert checked.complete, checked.output


def test_a_transfer_may_wait_for_ever_when_the_source_never_asks_again(tmp_path: Path) -> None:
    assert is_found("clearing", "NEVER_ASKS", tmp_path, ENDS)


def test_the_relay_and_the_consumer_come_to_rest(tmp_path: Path) -> None:
    checked = check("relay", tmp_path, how=COMES_TO_REST)
    assert checked.errors == 0, checked.output
    assert checked.complete, checked.output


@pytest.mark.parametrize(
    "guard", ["NO_DEADLINE", "NO_REPEAT_CHECK", "NO_LIMIT", "NO_DECIDE_ONCE", "GUESSES"]
)
def test_clearing_without_a_guard_is_found(guard: str, tmp_path: Path) -> None:
    assert is_found("clearing", guard, tmp_path)


@pytest.mark.parametrize(
    "guard",
    [
        "NO_INBOX",
        "CLAIM_APART",
        "OFFSET_FIRST",
        "NO_VERSION",
        "NO_EPOCH",
        "FORGETS_EPOCH",
        "NO_WATERMARK",
        "NO_RISE",
        "MARKS_FIRST",
        "ANY_ORDER",
    ],
)
def test_the_relay_without_a_guard_is_found(guard: str, tmp_path: Path) -> None:
    assert is_found("relay", guard, tmp_path)


@pytest.mark.parametrize("limit", ["DIES_UNNOTICED", "NOTHING_FOLLOWS"])
def test_what_the_relay_does_not_promise_is_known(limit: str, tmp_path: Path) -> None:
    """When one of these no longer is found, docs/models.md promises too little."""
    assert is_found("relay", limit, tmp_path)
