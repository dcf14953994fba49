"""Time banks that are asked over HTTP: what they say is verified like a file, and held against what
they say a moment later."""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evidence_world import City, two_cities, write

from copass_verify.__main__ import main
from copass_verify.merkle import prove_consistency, root_of
from copass_verify.online import NoAnswer, Server, parse_server


class Bank:
    """A city's time bank: `shown` in its bundle, `now` in its log."""

    def __init__(self, city: City, folder: Path) -> None:
        self.now = city
        self.bundle = write(folder / f"{city.name}.zip", city).read_bytes()
        self.asked: list[str | None] = []

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if path == "/v1/log/bundle":
            return 200, self.bundle
        if path.endswith("/checkpoint"):
            return 200, self.now.notes[-1].encode()
        if path.endswith("/consistency"):
            leaves = self.now.leaves()
            proof = prove_consistency(
                int(query["from"][0]),
                int(query["to"][0]),
                lambda level, index: root_of(leaves[index << level : (index + 1) << level]),
            )
            encoded = [base64.b64encode(item).decode() for item in proof]
            return 200, json.dumps({"proof": encoded}).encode()
        return 404, b"{}"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, bank: Bank, *arguments: Any) -> None:
        self.bank = bank
        super().__init__(*arguments)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.bank.asked.append(self.headers["Authorization"])
        status, body = self.bank.answer(parts.path, parse_qs(parts.query))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def banks(tmp_path: Path) -> Iterator[list[tuple[Bank, str]]]:
    running = []
    try:
        for city in two_cities():
            bank = Bank(city, tmp_path)
            server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, bank))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            running.append((bank, server))
        yield [(bank, f"http://127.0.0.1:{server.server_port}") for bank, server in running]
    finally:
        for _, server in running:
            server.shutdown()
            server.server_close()


def test_a_federation_of_several_addresses_and_files_holds(
    banks: list[tuple[Bank, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COPASS_TOKEN", "t")
    (nantes, one), (bourges, two) = banks
    bourges.now.post("transfer", ("didier", -1), ("chloe", 1))
    bourges.now.sign()
    assert main([one, f"{two}/v1/"]) == 0
    assert set(nantes.asked) == set(bourges.asked) == {"Bearer t"}
    assert main([one, str(tmp_path / "bourges.zip")]) == 0
    capsys.readouterr()
    # The past is changed after the bundle was fetched, and signed anew.
    bourges.now.entries[0]["kind"] = "other"
    bourges.now.notes.pop()
    bourges.now.sign()
    assert main([one, two, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["faults"][0]["city"] == "bourges"
    assert "two histories" in said["faults"][0]["what"]
    del bourges.now.notes[1:]
    assert main([two, "--json"]) == 1
    assert "it has 2 entries, and had 3" in capsys.readouterr().out


def test_a_server_that_does_not_say_is_named(
    banks: list[tuple[Bank, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bank, url = banks[0]
    small = Server(url, None)
    with pytest.raises(NoAnswer, match="larger than 100 bytes"):
        small.fetch(tmp_path / "x", most=100)
    with pytest.raises(NoAnswer, match="too long"):
        small.get("log/nantes/checkpoint", 100)
    for status, body, what in (
        (403, b"{}", "answered 403"),
        (302, b"http://127.0.0.1:1/elsewhere", "answered 302"),
        (200, b"nothing", "no evidence bundle"),
    ):
        monkeypatch.setattr(bank, "answer", lambda *_, told=(status, body): told)
        assert main([url, "--json"]) == 1
        assert what in capsys.readouterr().out
    assert main(["http://127.0.0.1:1", "--json"]) == 1


@pytest.mark.parametrize("address", ["https://", "https://a.example/?q=1", "http://a.example"])
def test_a_token_goes_nowhere_else(address: str) -> None:
    with pytest.raises(NoAnswer):
        parse_server(address, "t")
