from typing import Any

from copass.demo_data import demo_network
from copass.simulate import Answered, Findings, choose_cast, compare, plan_for, spread
from copass.statistics import percentile, percentiles

NETWORK = demo_network()


def answered(tap: str, decision: str = "grant") -> Answered:
    return Answered(tap, f"decision-of-{tap}", decision, "network_member", "p", "nantes", 1.0)


def row(tap: str, decision: str = "grant") -> dict[str, Any]:
    return {"tap_id": tap, "decision_id": f"decision-of-{tap}", "decision": decision}


def test_a_history_with_each_tap_once_is_clean() -> None:
    history = [row("a"), row("b", "deny"), row("somebody-else's")]
    assert compare([answered("a"), answered("b", "deny")], history) == Findings((), (), ())


def test_a_lost_tap_is_found() -> None:
    assert compare([answered("a"), answered("b")], [row("a")]).missing == ("b",)


def test_a_tap_stored_twice_is_found() -> None:
    assert compare([answered("a")], [row("a"), row("a")]).duplicated == ("a",)


def test_another_decision_than_the_door_got_is_found() -> None:
    assert compare([answered("a")], [row("a", "deny")]).different == ("a",)
    other = row("a") | {"decision_id": "another"}
    assert compare([answered("a")], [other]).different == ("a",)


def test_the_cast_leaves_the_demonstration_alone() -> None:
    cast = choose_cast(NETWORK, 1000, 1000)
    assert not any(member.key.startswith("demo-") for member, _card in cast.members)
    assert not any(place.key.startswith("demo-") for place, _door in cast.doors)
    assert all(card.state == "active" for _member, card in cast.members)
    assert all(door.kind == "public" for _place, door in cast.doors)


def test_a_small_cast_is_spread_over_the_cities_with_something_open() -> None:
    cast = choose_cast(NETWORK, 14, 14)
    assert len({member.city_id for member, _card in cast.members}) == 14
    assert all(place.always_open for place, _door in cast.doors)
    assert plan_for(cast, 1, 5, 1).visits_to_other_cities > 0


def test_spread_takes_turns() -> None:
    assert spread(["a1", "a2", "b1", "a3", "b2"], lambda x: x[0]) == ["a1", "b1", "a2", "b2", "a3"]


def test_percentiles_are_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentiles(reversed(values)) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert percentile([3.0], 0.5) == 3.0
