"""Commands that set things up: settings files to edit, and Prefect where it is installed."""

import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from fer_batch.extras import EXTRAS
from fer_batch.settings import CONFIGS
from tests.support import ROOT
from tests.support.command import run


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_settings_files_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("template") == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines.keys() == {path.name for path in CONFIGS.rglob("*.*")}
    assert lines["fer2013-six.yaml"].endswith("FER2013 without neutral")


def test_settings_files_are_copied_and_nothing_is_overwritten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("template", "prefect.yaml", "default.yaml") == 0
    assert yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]
    Path("default.yaml").write_text("mine")
    assert run("template", "default.yaml") == 2
    assert Path("default.yaml").read_text() == "mine"
    assert "File exists: 'default.yaml'" in capsys.readouterr().err


def test_an_unknown_settings_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("template", "prefect.toml", "none.yaml") == 2
    assert "no settings file none.yaml: there are default.yaml, " in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "deploy"])
@pytest.mark.parametrize("missing", ["prefect", "fer_batch_flows"])
def test_missing_prefect_or_flows_are_named(
    command: str,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert run(command) == 2
    said = capsys.readouterr().err
    assert f"No module named '{missing}'. To install it: pip install --editable '{ROOT}'" in said


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) | {"dev"} == project["optional-dependencies"].keys()
