"""Nothing that only Linux has is needed. No test has run on macOS or Windows yet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support import ROOT
from tests.support.clips import clip
from tests.support.portraits import portrait, portraits

PRELUDE = """
from tests.support.another_system import leave_linux
leave_linux()
"""
NO_DECORD = """
import sys
sys.modules["decord"] = None
"""
JOB = """
import sys
from tests.support.another_system import import_all

import_all()
from fer_batch.cli.main import main
from fer_batch.storage import locks

assert hasattr(locks, "msvcrt")
media, out, *settings = sys.argv[1:]
for arguments in (
    ["process", media, "-o", out, "--annotate", *(f"--set={each}" for each in settings)],
    ["show", out],
    ["report", out],
):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, (arguments, end.code)
"""
SHARDS = """
import sys
from pathlib import Path
from fer_batch.config import load
from fer_batch.distributed.shared_run import join_run
from fer_batch.distributed.supervisor import do_shard
from fer_batch.pipeline.plan import make_plan
from fer_batch.results import store

media, out, *settings = sys.argv[1:]
plan = make_plan([Path(media, "clip.mp4")], Path(out), load(None, settings))
with join_run(plan, Path(out), max_mb=1000, split_mb=1e6, lease_s=60):
    assert do_shard(Path(out), 1, timeout_s=300, on_log=print)
print([(row.media, row.status) for row in store.media_rows(Path(out))])
"""


def run_elsewhere(code: str, folder: Path, prelude: str = PRELUDE) -> str:
    """Process two files in a process that looks like one on another system; gives its output."""
    (folder / "sitecustomize.py").write_text(prelude, encoding="utf-8")
    media = folder / "media"
    media.mkdir()
    clip(media / "clip.mp4", portraits(1, 4))
    Image.fromarray(portrait(1)).save(media / "image.png")
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code, media, folder / "out", "runtime.threads=1"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "prelude",
    [PRELUDE + NO_DECORD, pytest.param(PRELUDE, marks=pytest.mark.slow)],
    ids=["without decord", "with decord"],
)
def test_the_main_job_needs_nothing_that_only_linux_has(tmp_path: Path, prelude: str) -> None:
    printed = run_elsewhere(JOB, tmp_path, prelude)
    assert "2 ok, 0 partial, 0 failed" in printed
    assert (tmp_path / "out" / "annotated" / "clip.mp4").exists()
    assert (tmp_path / "out" / "annotated" / "image.png").exists()
    assert (tmp_path / "out" / "report" / "summary.md").exists()


@pytest.mark.slow
def test_a_shard_in_its_own_process_needs_nothing_that_only_linux_has(tmp_path: Path) -> None:
    assert "[('clip.mp4', 'ok')]" in run_elsewhere(SHARDS, tmp_path)
