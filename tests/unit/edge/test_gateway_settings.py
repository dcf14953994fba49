"""The gateway's configuration: checked whole, named by field, without a secret in any message."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from copass_edge.gateway import rights, running
from copass_edge.gateway.__main__ import app
from copass_edge.gateway.settings import ConfigError, load_config

READER_KEY = "22222222-2222-4222-8222-222222222222.sssssssssssssssssssss"
WHOLE = """
access_url = "https://access.example"

[http]
port = 8090

[mqtt]
host = "127.0.0.1"
username = "copass-gateway"
password = "env:GW_PASSWORD"

[[fabman]]
name = "laser"
kind = "machine"
token = "env:GW_TOKEN"
door_id = "11111111-1111-4111-8111-111111111111"
reader_key = "env:GW_READER"

[[acnode]]
node = 7
key = "env:GW_TOKEN"
door_id = "11111111-1111-4111-8111-111111111111"
reader_key = "env:GW_READER"

[[fabomatic]]
machine = "12"
label = "ENDER"
door_id = "11111111-1111-4111-8111-111111111111"
reader_key = "env:GW_READER"

[[esprfid]]
topic = "front/door"
address = "192.168.1.31"
users = "front.cards"
door_id = "11111111-1111-4111-8111-111111111111"
reader_key = "env:GW_READER"

[uhppote]
[[uhppote.controller]]
serial = 405419896
address = "192.168.1.100:60000"
bits = 26
uids = "listed"
cards = "gate.cards"
[[uhppote.controller.door]]
number = 1
door_id = "11111111-1111-4111-8111-111111111111"
reader_key = "env:GW_READER"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in (("PASSWORD", "broker-secret"), ("TOKEN", "token-secret")):
        monkeypatch.setenv(f"GW_{name}", value)
    monkeypatch.setenv("GW_READER", READER_KEY)
    (tmp_path / "front.cards").write_text("04:A2:B1:C3:D4:E5:F6  # desk\n-04112233445566\n")
    (tmp_path / "gate.cards").write_text("64E4205A\n")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    (folder / "gateway.toml").write_text(text)
    return folder / "gateway.toml"


def test_a_whole_configuration_becomes_devices_and_shows_no_secret(folder: Path) -> None:
    gateway = running.build(load_config(written(folder, WHOLE)), folder)
    assert [point.name for point in gateway.points] == [
        "fabman.laser",
        "acnode.7",
        "fabomatic.12",
        "esprfid.front/door",
        "uhppote.405419896.1",
    ]
    assert gateway.stations["front/door"].users == ("4a2b1c3d4e5f6",)
    assert gateway.stations["front/door"].withdrawn == ("4112233445566",)
    assert gateway.controllers[405419896].uid_of(10058400) == "64E4205A"
    for secret in ("broker-secret", "token-secret", READER_KEY[-20:]):
        assert secret not in repr(gateway)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("[http]\nport = 8090", "", "[http] is missing"),
        ('door_id = "1', 'door_id = "x', "door_id"),
        ("node = 7", "node = 7\ncolour = 1", "colour"),
        ("bits = 26", "bits = 27", "bits"),
        ('uids = "listed"\ncards = "gate.cards"', "", "26 bits"),
        ('token = "env:GW_TOKEN"', 'token = "token-secret"', "token"),
        ("number = 1", "number = 5", "number"),
        ('access_url = "https://access.example"', 'access_url = "ftp://x"', "access_url"),
    ],
)
def test_a_fault_is_named_by_its_field(folder: Path, old: str, new: str, field: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as error:
        load_config(written(folder, WHOLE.replace(old, new, 1)))
    assert field in str(error.value)
    assert "token-secret" not in str(error.value)


def test_what_the_configuration_names_must_be_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(written(folder, WHOLE))
    monkeypatch.setenv("GW_READER", "not-a-key")
    with pytest.raises(ConfigError, match="is no reader key"):
        running.build(config, folder)
    monkeypatch.setenv("GW_READER", "")
    with pytest.raises(ConfigError, match="is empty"):
        running.build(config, folder)
    monkeypatch.setenv("GW_READER", READER_KEY)
    (folder / "front.cards").write_text("041D5A77\n410D5A77\n")
    with pytest.raises(ConfigError, match="printed alike"):
        running.build(config, folder)
    (folder / "front.cards").write_text("hello\n")
    with pytest.raises(ConfigError, match=r"front\.cards:1"):
        running.build(config, folder)


def test_each_login_may_only_its_own_topics(folder: Path) -> None:
    acl = rights.mosquitto_acl(rights.grants(load_config(written(folder, WHOLE))))
    by_user = {
        block.split("\n", 1)[0].removeprefix("user "): block.strip().split("\n")[1:]
        for block in acl.strip().split("\n\n")
    }
    assert by_user["machine-12"] == [
        "topic read machine/12/reply",
        "topic read machine/12/request",
        "topic write machine/12",
    ]
    assert "topic read front/door/cmd" in by_user["front-door"]
    assert not any("cmd" in line and "write" in line for line in by_user["front-door"])
    assert "topic readwrite front/door/cmd" in by_user["copass-gateway"]
    assert "topic read machine/12" in by_user["copass-gateway"]


def test_two_devices_with_one_login_or_topic_are_refused(folder: Path) -> None:
    for topic, told in (("machine-12", "log in as machine-12"), ("copass-gateway", "log in as")):
        config = load_config(written(folder, WHOLE.replace("front/door", topic)))
        with pytest.raises(ConfigError, match=told):
            running.build(config, folder)
    nested = WHOLE.replace('machine = "12"', 'machine = "send"').replace("front/door", "machine")
    with pytest.raises(ConfigError, match="share the topic machine/send"):
        running.build(load_config(written(folder, nested)), folder)


def test_the_commands_check_and_list_without_showing_a_secret(folder: Path) -> None:
    file = str(written(folder, WHOLE))
    checked = CliRunner().invoke(app, ["check", "--config", file])
    assert checked.exit_code == 0, checked.output
    assert "fabman.laser" in checked.output
    listed = CliRunner().invoke(app, ["acl", "--config", file])
    assert "user machine-12" in listed.output
    (folder / "gate.cards").unlink()
    failed = CliRunner().invoke(app, ["run", "--config", file])
    told = failed.output.replace("\n", "")  # a long path is broken at the width of the terminal
    assert (failed.exit_code, "gate.cards" in told) == (1, True)
    for secret in ("broker-secret", "token-secret", READER_KEY[-20:]):
        assert secret not in checked.output + listed.output + failed.output


def test_the_example_is_a_configuration() -> None:
    example = Path(__file__).parents[3] / "edge" / "gateway.example.toml"
    config = load_config(example)
    assert len(config.fabman + config.acnode + config.fabomatic + config.esprfid) == 4
    assert config.uhppote is not None
