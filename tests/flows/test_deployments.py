"""The flows: what their files may hold, and one real server, worker and deployment."""

import ast
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import pandas as pd
import pytest
import skimage.data

from tests.support import ROOT
from tests.support.clips import clip
from tests.support.deployment import Deployed

FLOWS = sorted((ROOT / "flows").glob("*.py"))
ALLOWED = sys.stdlib_module_names | {"prefect", "pydantic", "pydantic_core", "fer_batch"}
ALLOWED |= {"prefect_dask", "prefect_ray"}


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_a_flow_file_only_wraps_the_library(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 120
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module or "")
    assert {name.split(".")[0] for name in imported} <= ALLOWED
    # Postponed annotations break the parameters of flows that are served.
    assert "__future__" not in imported


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_tasks_are_not_cached(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in map(ast.unparse, node.decorator_list):
            if decorator.startswith("task"):
                assert "cache_policy=NO_CACHE" in decorator, node.name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_processes_a_folder(deployed: Deployed, tmp_path: Path) -> None:
    footage, out = tmp_path / "footage", tmp_path / "out"
    footage.mkdir()
    portrait = skimage.data.astronaut()
    clip(footage / "good clip.mp4", [portrait] * 12)
    cv2.imwrite(str(footage / "picture.png"), portrait[:, :, ::-1])
    where = {"input": str(footage), "output": str(out)}
    process = partial(deployed.run, "process-dataset/on-demand")

    state, message = process(input=str(tmp_path / "absent"), output=str(out))
    assert state == "FAILED"
    assert "absent" in message

    hasty = {"input": str(footage), "output": str(tmp_path / "hasty"), "report": False}
    state, message = process(**hasty, scale={"timeout_s": 0.5})
    assert state == "FAILED"
    assert "picture.png: set aside, as it ended 2 processes: killed after 0.5 s" in message

    state, message = process(**where, annotate=True)
    assert "2 ok, 0 partial, 0 failed; 0 were done before" in message
    assert state == "COMPLETED"
    faces = pd.read_parquet(out / "faces")
    assert set(faces["media"]) == {"good clip.mp4", "picture.png"}
    assert len(faces) == 13
    assert {path.name for path in (out / "annotated").iterdir()} == {"good clip.mp4", "picture.png"}

    render = partial(deployed.run, "render-run/on-demand", output=str(out))
    state, message = render(style="heatmap", blur=True, gif=True)
    assert (state, message) == ("COMPLETED", f"pictures: {out}")
    assert (out / "annotated" / "good clip.mp4.gif").exists()
    assert {path.name for path in (out / "sheets").iterdir()} == {
        *("run-001.png", "images.png", "good clip.mp4.png")
    }
    state, message = render(media=["absent.mp4"])
    assert state == "FAILED"
    assert "absent.mp4" in message

    state, message = deployed.run("explain-run/on-demand", output=str(out), sample=2)
    assert (state, message) == ("COMPLETED", f"explanations: {out / 'explain'}")
    assert deployed.artifact("summary") == (out / "explain" / "summary.md").read_text()

    (footage / "broken.mp4").write_text("no video")
    clip(footage / "late.mp4", [portrait] * 6)
    scale = {"shard_mb": 1e-6, "workers": 2}
    state, message = process(**where, scale=scale, config={"runtime": {"readers": 1}})
    assert state == "FAILED"
    assert "1 ok, 0 partial, 1 failed; 2 were done before" in message
    assert "broken.mp4" in message
    assert "late.mp4" not in message
    logged = deployed.ask("logs/filter", "POST", logs={"level": {"ge_": logging.WARNING}})
    assert any("broken.mp4 is failed" in line["message"] for line in logged)
    media = pd.read_parquet(out / "media").set_index("media")["status"]
    assert media.to_dict() == {
        "broken.mp4": "failed",
        "good clip.mp4": "ok",
        "late.mp4": "ok",
        "picture.png": "ok",
    }
    assert len(pd.read_parquet(out / "faces")) == 19
    assert json.loads((out / "run.json").read_text())["counts"]["n_failed"] == 1
    while any(path.is_dir() for path in (out / ".run").iterdir()):  # the other run looks for more
        time.sleep(1)
