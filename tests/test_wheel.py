"""The wheel: the commands of the README work from it, in a folder without the repository."""

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import skimage.data
from PIL import Image

from fer_batch.settings import CONFIGS
from tests.support import ROOT
from tests.support.clips import clip
from tests.support.deployment import Deployed, deployed_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("fer_batch-*.whl"))


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder to work in."""

    python: Path
    folder: Path

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """What ``fer-batch`` prints when it ends with this exit code."""
        return self.execute("fer-batch", *arguments, code=code)

    def execute(self, program: str, *arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [self.python.with_name(program), *arguments],
            cwd=self.folder,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new environment, which borrows from this one what fer_batch depends on."""
    environment, folder = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("work")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/python*/site-packages"))
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    pip("--python", python, "install", "--no-deps", "--no-index", "--force-reinstall", wheel)
    (folder / "videos").mkdir()
    clip(folder / "videos" / "clip.mp4", [skimage.data.astronaut()] * 12)
    Image.fromarray(skimage.data.astronaut()).save(folder / "videos" / "picture.png")
    return Installed(python, folder)


@pytest.fixture(scope="module")
def served(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    home = tmp_path_factory.mktemp("prefect")
    with deployed_in(home, python=installed.python, folder=installed.folder, sources="") as running:
        yield running


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def test_the_wheel_holds_code_settings_weights_and_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names}
    information = f"{wheel.name.rsplit('-', 3)[0]}.dist-info"
    assert packages == {"fer_batch", "fer_batch_flows", information}
    settings = {f"fer_batch/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.*")}
    assert settings <= set(names)
    assert {
        "fer_batch/weights/ferplus-resnet-compact.safetensors",
        "fer_batch/weights/detectors/glance.safetensors",
        "fer_batch/weights/detectors/glance.json",
        f"{information}/licenses/LICENSE",
        f"{information}/licenses/fer_batch/weights/LICENSE",
    } <= set(names)


def test_commands_work_in_an_empty_folder(installed: Installed) -> None:
    where = installed.execute("python", "-c", "import fer_batch; print(fer_batch.__file__)")
    assert str(installed.python.parents[1]) in where
    installed.run("process", "videos", "-o", "results", "--quiet")
    assert "clip.mp4" in installed.run("show", "results")
    for command in ("render", "sheet", "report"):
        installed.run(command, "results", "--quiet")
    made = ("annotated/clip.mp4", "annotated/picture.png", "sheets/run-001.png")
    for name in (*made, "report/summary.md"):
        assert (installed.folder / "results" / name).exists(), name
    assert "detector:" in installed.run("config")
    assert "resnet-compact" in installed.run("models")


def test_settings_are_there_to_copy_and_recipes_have_names(installed: Installed) -> None:
    assert "ferplus-resnet-compact.yaml" in installed.run("template")
    installed.run("template", "default.yaml")
    installed.run("config", "--config", "default.yaml")
    where = ("--data", "absent", "-o", "trained")
    recipes = (
        ("train", "ferplus-resnet-compact"),
        ("train-detector", "glance"),
        ("sweep", "table4"),
    )
    for command, name in recipes:
        assert "absent" in installed.run(command, "--config", name, *where, code=2)


def test_a_missing_extra_is_named_with_the_wheel(installed: Installed, wheel: Path) -> None:
    without = "import sys; sys.modules['optuna'] = None; from fer_batch.cli.main import main; "
    sweep = "main('sweep --config table4 --data absent -o out'.split())"
    said = installed.execute("python", "-c", without + sweep, code=2)
    assert said.endswith(f"To install it: pip install '{wheel}[train]'\n")


def test_serve_deploy_and_run(installed: Installed, served: Deployed) -> None:
    state, message = served.run("process-dataset/on-demand", input="videos", output="emotions")
    assert state == "COMPLETED", message
    assert "2 ok, 0 partial, 0 failed" in message
    faces = pd.read_parquet(installed.folder / "emotions" / "faces")
    assert set(faces["media"]) == {"clip.mp4", "picture.png"}

    installed.run("template", "prefect.yaml")
    file = installed.folder / "prefect.yaml"
    file.write_text(file.read_text().replace("active: false", "active: true"))
    assert "no Prefect server is named" in installed.run("deploy", code=2)
    subprocess.run(
        [installed.python, "-m", "fer_batch", "deploy"],
        cwd=installed.folder,
        env=served.environment,
        check=True,
    )
    nightly = served.ask("deployments/name/process-dataset/nightly")
    assert [schedule["active"] for schedule in nightly["schedules"]] == [True]
