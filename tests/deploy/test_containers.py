"""Dockerfiles and compose files: what linters say, where they are there, and what must not be otherwise."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "deploy" / "containers"
HADOLINT = shutil.which("hadolint")
DOCKERFILES = sorted(p for p in CONTAINERS.glob("Dockerfile.*") if p.suffix != ".dockerignore")
COMPOSED = sorted(CONTAINERS.glob("compose.*.yaml"))


def services() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in COMPOSED:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found += [(f"{path.name}: {name}", service) for name, service in content["services"].items()]
    return found


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint here")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_an_image_runs_as_nobody_special_and_has_a_health_check(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert re.findall(r"(?m)^USER (.*)$", last) == ["10001:10001"]
    assert "\nHEALTHCHECK " in last
    assert "\nSTOPSIGNAL SIGTERM" in last
    # Versions are those that everything is tested with, and no layer is given a secret.
    assert "--constraint constraints.txt" in text
    assert not re.search(r"(?i)(password|secret|token|\.key|\.pem)\b", re.sub(r"(?m)^#.*$", "", text))
    # Nothing beside the code comes into the build.
    assert "\n*\n" in path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", COMPOSED, ids=lambda p: p.name)
def test_a_compose_file_is_one_and_a_misspelt_key_is_found(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    compose_spec.PyCompose.from_yaml(text)
    with pytest.raises(ValueError, match="read_onyl"):
        compose_spec.PyCompose.from_yaml(text.replace("read_only: true", "read_onyl: true", 1))


@pytest.mark.parametrize(("name", "service"), services())
def test_every_service_is_confined(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "environment" not in service


def test_only_the_sites_port_is_published_and_a_site_publishes_none() -> None:
    ports = {name: service.get("ports", []) for name, service in services()}
    assert ports == {
        "compose.server.yaml: server": ["8443:8443"],
        "compose.server.yaml: prometheus": ["127.0.0.1:9090:9090"],
        "compose.site.yaml: site": [],
    }


def test_a_site_reads_its_data_and_the_approved_code_and_writes_neither() -> None:
    (site,) = [service for name, service in services() if name.endswith("site")]
    writable = [v["target"] for v in site["volumes"] if not v.get("read_only")]
    assert writable == ["/var/lib/fedseal"]
