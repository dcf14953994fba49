"""docker-compose.yml: valid, and the same topology as everywhere else."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("identity", "timebank", "access", "places")
WORKER_PORTS = {"identity": 8021, "timebank": 8022, "access": 8023, "places": 8024}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


def test_it_is_valid_against_the_compose_specification(tool: Any) -> None:
    done = subprocess.run(
        [
            tool("check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            str(ROOT / "docker-compose.yml"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_migrates_before_its_api_and_worker_start(compose: dict[str, Any]) -> None:
    for service in SERVICES:
        for process in (service, f"{service}-worker"):
            waits_for = compose["services"][process]["depends_on"][f"{service}-migrate"]
            assert waits_for == {"condition": "service_completed_successfully"}
        migrate = compose["services"][f"{service}-migrate"]
        assert migrate["depends_on"]["postgres"] == {"condition": "service_healthy"}
        assert migrate["restart"].startswith("on-failure")


def test_whatever_is_waited_for_exists_and_can_become_healthy(compose: dict[str, Any]) -> None:
    for spec in compose["services"].values():
        for name, how in spec.get("depends_on", {}).items():
            other = compose["services"][name]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in other


def test_a_worker_is_checked_on_its_own_port(compose: dict[str, Any]) -> None:
    for service, port in WORKER_PORTS.items():
        check = compose["services"][f"{service}-worker"]["healthcheck"]["test"]
        assert check[-1] == f"http://127.0.0.1:{port}/readyz"


def test_only_the_proxy_is_reachable_from_outside(compose: dict[str, Any]) -> None:
    open_to_all = [name for name, spec in compose["services"].items() if "ports" in spec]
    assert open_to_all == ["proxy"]
    assert compose["networks"]["back"]["internal"] is True
    for store in ("postgres", "valkey", "kafka"):
        assert compose["services"][store]["networks"] == ["back"]


def test_the_processes_cannot_write_or_gain_rights(compose: dict[str, Any]) -> None:
    for name, spec in compose["services"].items():
        if name not in ("postgres", "valkey", "kafka"):
            assert spec["read_only"] is True, name
            assert spec["cap_drop"] == ["ALL"], name
            assert "no-new-privileges:true" in spec["security_opt"], name


def test_every_file_that_is_mounted_or_built_exists(compose: dict[str, Any]) -> None:
    for spec in compose["services"].values():
        for volume in spec.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file()
            else:
                assert source in compose["volumes"]
        if "build" in spec:
            assert (ROOT / spec["build"]["dockerfile"]).is_file()


def test_every_secret_is_demanded_and_listed_in_the_example(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    names = set(re.findall(r"\$\{(\w+):[?-]", text))
    listed = set(
        re.findall(
            r"^(\w+)=", (ROOT / "deploy/compose/env.example").read_text("utf-8"), re.MULTILINE
        )
    )
    assert names == listed


def test_the_tap_stream_is_kept_and_never_evicted(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["valkey"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_broker_is_the_version_that_we_test_with(compose: dict[str, Any]) -> None:
    pom = (ROOT / "tools/kafka/pom.xml").read_text("utf-8")
    tested = re.search(r"<kafka.version>([\d.]+)</kafka.version>", pom)
    assert tested
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{tested.group(1)}"
