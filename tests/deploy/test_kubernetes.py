"""The Kubernetes manifests are valid, and fit the program that they start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from responder import cli
from responder.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = {path.name: list(yaml.safe_load_all(path.read_text())) for path in FOLDER.glob("*.yaml")}
OBJECTS = [
    pytest.param(each, id=f"{name}-{each['kind']}") for name, file in FILES.items() for each in file
]
DEPLOYMENTS = [
    pytest.param(each.values[0], id=each.id)
    for each in OBJECTS
    if each.values[0]["kind"] == "Deployment"  # type: ignore[index]  # any JSON
]


@pytest.mark.parametrize("manifest", OBJECTS)
@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_the_api_takes_it(manifest, version):
    """Each object is what Kubernetes describes, with no field that it does not know."""
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_it_starts_a_command_with_settings_that_exist(deployment):
    """The arguments are those of a command, and each variable is a setting."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = {str(field.alias) for field in Settings.model_fields.values()}

    assert cli._parser().parse_args(container["args"]).run
    assert {each["name"] for each in container["env"]} <= names


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_probes_ask_the_admin_listener_where_the_image_has_it(deployment):
    """Liveness and readiness are asked for on the port that the Dockerfile exposes."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    (admin,) = re.findall(r"RESPONDER_ADMIN_LISTEN=0\.0\.0\.0:(\d+)", dockerfile)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}

    assert int(admin) == ports["admin"]
    assert {
        "liveness": {"path": "/live", "port": "admin"},
        "readiness": {"path": "/ready", "port": "admin"},
    } == asked


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_pod_has_the_time_to_answer_what_it_has_received(deployment):
    """It is killed later than its preStop and the default drain timeout together."""
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)

    assert pause + Settings().drain_timeout < spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", FILES)
def test_what_selects_pods_selects_those_of_the_file(name):
    """Deployment, Service, PodDisruptionBudget and NetworkPolicy of a file mean the same pods."""
    labels = [_selected(each) for each in FILES[name]]

    assert labels
    assert all(each == labels[0] for each in labels)


def _selected(manifest: dict[str, Any]) -> dict[str, str]:
    spec = manifest["spec"]
    selector = spec.get("selector") or spec["podSelector"]
    return dict(selector.get("matchLabels", selector))


def test_the_readme_names_the_folder():
    """A reader of the README finds the manifests."""
    assert "deploy/kubernetes" in README
