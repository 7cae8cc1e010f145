"""Images, compose files and systemd units: they fit the project, and each other."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
UNITS = sorted((ROOT / "systemd").glob("*.service"))
COMPOSE = ["-f", "docker/compose.yaml", "-f", "docker/compose.gpu.yaml"]


def run_tool(*command: str, **environment: str) -> str:
    """Run a program of the dev extra, or skip where it is not installed."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not (found := shutil.which(command[0], path=paths)):
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(
        [found, *command[1:]],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modules() -> list[list[str]]:
    """Modules that start in the image, the services and the units, with their arguments."""
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"].values()
    found = [json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[0])]
    found += [shlex.split(service["command"]) for service in services if "command" in service]
    for path in UNITS:
        lines = re.findall(r"^Exec\w+=\S+python -m (.*)$", path.read_text(), re.MULTILINE)
        found += map(shlex.split, lines)
    return [["fer_batch", *words[1:]] if words[0] == "fer-batch" else words for words in found]


def test_hadolint_finds_nothing() -> None:
    assert run_tool("hadolint", "docker/Dockerfile") == ""


def test_the_image_takes_python_and_pins_of_the_project() -> None:
    assert "FROM python:3.11-slim" in DOCKERFILE
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()
    assert "--constraint constraints.txt" in DOCKERFILE
    assert "==" not in DOCKERFILE


def test_the_image_gets_what_it_copies() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    paths = {path for line in copied for path in line.split()}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert {path.split("/")[0] for path in paths} == sent
    assert all((ROOT / path).exists() for path in paths)


def test_compose_accepts_the_files() -> None:
    choice = {"POSTGRES_PASSWORD": "secret", "DEVICE": "cuda", "VIDEOS": "/data", "OUTPUTS": "/out"}
    password = {"PREFECT_API_AUTH_STRING": "a:b", "PREFECT_SERVER_API_AUTH_STRING": "a:b"}
    arguments = [*COMPOSE, "--profile", "two-gpus", "config", "--format", "json"]
    services = json.loads(run_tool("docker-compose", *arguments, **choice, **password))["services"]
    assert set(services) == {"database", "server", "deploy", "worker", "worker-1"}
    ours = [service for name, service in services.items() if name != "database"]
    assert all(password.items() <= service["environment"].items() for service in ours)
    assert {service["image"] for service in ours} == {"fer-batch:cuda"}
    assert {service["build"]["args"]["TORCH_INDEX"] for service in ours} == {
        "https://pypi.org/simple"
    }


@pytest.mark.parametrize("module", modules(), ids=" ".join)
def test_commands_exist_with_their_options(module: list[str]) -> None:
    options = [word for word in module if word.startswith("--")]
    command = module[: module.index(options[0])] if options else module
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [option for option in options if option not in done.stdout] == []


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(path: Path, tmp_path: Path) -> None:
    unit = path.read_text().replace("/opt/fer-batch/.venv/bin/python", sys.executable)
    (tmp_path / path.name).write_text(unit)
    run_tool("systemd-analyze", "verify", str(tmp_path / path.name))
