"""deploy/k8s: valid, complete, and no more open than it must be."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from timebank.settings import APP_ROLE

ROOT = Path(__file__).resolve().parents[3]
BASE = ROOT / "deploy/k8s"
SERVICES = ("identity", "timebank", "access", "places")
PORTS = {"portal": 8000, "identity": 8001, "timebank": 8002, "access": 8003, "places": 8004}
WORKER_PORTS = {"identity": 8021, "timebank": 8022, "access": 8023, "places": 8024}
# Their schemas belong to the operators that define them.
CUSTOM = {"Cluster", "Kafka", "KafkaNodePool"}


def objects(folder: Path = BASE) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))["resources"]:
        path = folder / name
        if path.is_dir():
            found += objects(path)
        else:
            found += [doc for doc in yaml.safe_load_all(path.read_text("utf-8")) if doc]
    return found


OBJECTS = objects()


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [doc for doc in OBJECTS if doc["kind"] in kinds]


def workloads() -> list[tuple[str, dict[str, Any]]]:
    return [
        (doc["metadata"]["name"], doc["spec"]["template"]["spec"])
        for doc in of_kind("Deployment", "StatefulSet", "Job")
    ]


def test_every_core_object_is_strictly_valid(tool: Any, tmp_path: Path) -> None:
    core = tmp_path / "core.yaml"
    core.write_text(yaml.safe_dump_all([d for d in OBJECTS if d["kind"] not in CUSTOM]), "utf-8")
    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", str(core)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout + done.stderr


def test_the_base_names_every_file_of_its_folder() -> None:
    listed = set(yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))["resources"])
    present = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert present == {name for name in listed if name.endswith(".yaml")}


def test_no_two_objects_have_the_same_kind_and_name() -> None:
    names = [(doc["kind"], doc["metadata"]["name"]) for doc in OBJECTS]
    assert len(names) == len(set(names))


def test_every_service_has_an_api_a_worker_a_migration_and_its_own_database() -> None:
    deployments = {doc["metadata"]["name"] for doc in of_kind("Deployment")}
    assert deployments == {*PORTS, *(f"{s}-worker" for s in SERVICES), "proxy"}
    assert {d["metadata"]["name"] for d in of_kind("Job")} == {f"{s}-migrate" for s in SERVICES}
    databases = {
        doc["metadata"]["name"]: (initdb["database"], initdb["owner"])
        for doc in of_kind("Cluster")
        for initdb in [doc["spec"]["bootstrap"]["initdb"]]
    }
    assert databases == {f"{s}-db": (s, s) for s in SERVICES}


def test_the_time_bank_has_the_role_that_it_works_as() -> None:
    (cluster,) = [d for d in of_kind("Cluster") if d["metadata"]["name"] == "timebank-db"]
    assert cluster["spec"]["bootstrap"]["initdb"]["postInitApplicationSQL"] == [
        f"CREATE ROLE {APP_ROLE} NOLOGIN",
        f"GRANT {APP_ROLE} TO timebank",
    ]


def test_every_api_scales_and_survives_a_drain() -> None:
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert set(PORTS) <= {doc["metadata"]["name"] for doc in of_kind(kind)}
    for scaler in of_kind("HorizontalPodAutoscaler"):
        assert scaler["spec"]["minReplicas"] >= 2
        # A count in the Deployment would undo the autoscaler at every apply.
        target = scaler["spec"]["scaleTargetRef"]["name"]
        (deployment,) = [d for d in of_kind("Deployment") if d["metadata"]["name"] == target]
        assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize(("name", "pod"), workloads())
def test_every_pod_is_confined_and_bounded(name: str, pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_every_process_is_probed_on_its_own_port() -> None:
    for deployment in of_kind("Deployment"):
        name = deployment["metadata"]["name"]
        if name == "proxy":
            continue
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        service = name.removesuffix("-worker")
        expected = (WORKER_PORTS if name.endswith("-worker") else PORTS)[service]
        assert container["ports"] == [{"name": "http", "containerPort": expected}]
        for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "http"}


def test_every_selector_finds_the_pods_that_it_means() -> None:
    pods = [doc["spec"]["template"]["metadata"]["labels"] for doc in of_kind("Deployment")]
    pods += [doc["spec"]["template"]["metadata"]["labels"] for doc in of_kind("StatefulSet")]
    for doc in of_kind("Service"):
        assert any(doc["spec"]["selector"].items() <= labels.items() for labels in pods)
    for doc in of_kind("PodDisruptionBudget"):
        wanted = doc["spec"]["selector"]["matchLabels"]
        assert any(wanted.items() <= labels.items() for labels in pods)


def test_everything_is_denied_unless_a_policy_allows_it() -> None:
    (deny,) = [d for d in of_kind("NetworkPolicy") if d["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_database_accepts_its_own_service_only() -> None:
    for service in SERVICES:
        (policy,) = [
            d for d in of_kind("NetworkPolicy") if d["metadata"]["name"] == f"{service}-db"
        ]
        clients = [
            peer["podSelector"]["matchLabels"]
            for rule in policy["spec"]["ingress"]
            for peer in rule["from"]
            if "podSelector" in peer
        ]
        assert clients == [
            {"app.kubernetes.io/name": service},
            {"cnpg.io/cluster": f"{service}-db"},
        ]


def test_every_call_allowed_out_is_allowed_in_at_the_other_end() -> None:
    """Between our own pods, each (from, to, port) of an egress rule has its ingress rule."""
    policies = {d["metadata"]["name"]: d["spec"] for d in of_kind("NetworkPolicy")}
    for caller in ("proxy", "portal", *SERVICES):
        for rule in policies[caller]["egress"]:
            (peer,) = rule["to"]
            labels = peer["podSelector"]["matchLabels"]
            target = labels.get("app.kubernetes.io/name") or labels.get("cnpg.io/cluster")
            target = target or ("kafka" if "strimzi.io/cluster" in labels else None)
            assert target in policies
            if target == caller:
                continue
            (port,) = rule["ports"]
            allowed = [
                rule
                for rule in policies[target]["ingress"]
                if port in rule.get("ports", [])
                and any(
                    source["podSelector"]["matchLabels"].items()
                    <= {
                        "app.kubernetes.io/name": caller,
                        "app.kubernetes.io/part-of": "copass",
                    }.items()
                    for source in rule["from"]
                )
            ]
            assert allowed, f"{caller} → {target}:{port['port']}"


def test_images_are_ours_with_a_version_or_pinned() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))
    versioned = {image["name"] for image in kustomization["images"] if image["newTag"]}
    assert versioned == {f"copass/{service}" for service in PORTS}
    for _, pod in workloads():
        for container in pod["containers"]:
            image = container["image"]
            assert image in versioned or re.search(r":\d", image), image


def test_the_stores_keep_what_they_acknowledge() -> None:
    (valkey,) = of_kind("StatefulSet")
    command = " ".join(valkey["spec"]["template"]["spec"]["containers"][0]["args"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    (kafka,) = of_kind("Kafka")
    assert kafka["spec"]["kafka"]["config"]["min.insync.replicas"] == 2
    for settings in of_kind("ConfigMap"):
        for name, value in settings["data"].items():
            if name.endswith("_KAFKA_REPLICATION"):
                assert value == "3"
    for cluster in of_kind("Cluster"):
        assert cluster["spec"]["postgresql"]["synchronous"] == {"method": "any", "number": 1}
