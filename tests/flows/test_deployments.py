"""One real Prefect server and its workers: every deployment runs, and what goes wrong is said."""

import json
import logging
import os
import signal
import time
from datetime import datetime
from functools import partial
from pathlib import Path

import cv2
import pandas as pd
import pytest
import skimage.data

from tests.support.bars import bars_recipe, make_bars
from tests.support.clips import clip
from tests.support.deployment import Deployed, processes_with

pytestmark = pytest.mark.slow


def test_a_wrong_value_is_refused_at_once(deployed: Deployed) -> None:
    run = ("deployment", "run", "process-dataset/on-demand", "--param=input=a", "--param=output=b")
    said = " ".join(deployed.prefect(*run, "--param=force=perhaps", check=False).split())
    assert "Validation failed for field 'force'" in said
    assert "'perhaps' is not of type 'boolean'" in said


def test_a_run_made_for_another_version_says_so(deployed: Deployed, tmp_path: Path) -> None:
    deployment = f"deployments/{deployed.ask('deployments/name/render-run/on-demand')['id']}"
    deployed.ask(deployment, "PATCH", parameters={"loops": True}, enforce_parameter_schema=False)
    try:
        state, message = deployed.run("render-run/on-demand", output=str(tmp_path))
    finally:
        deployed.ask(deployment, "PATCH", parameters={}, enforce_parameter_schema=True)
    assert state == "FAILED"
    assert message.startswith("made for another version of fer_batch, see loops: ")


@pytest.mark.timeout(600)
def test_a_run_that_no_worker_takes_says_so(deployed: Deployed, tmp_path: Path) -> None:
    deployed.prefect("work-pool", "pause", "fer-batch")
    run = deployed.submit("explain-run/on-demand", output=str(tmp_path))
    message = deployed.wait_for(run, "NoWorker")
    deployed.prefect("work-pool", "resume", "fer-batch")
    assert message.startswith("no free worker in pool fer-batch")
    assert str(tmp_path) in deployed.wait_for(run, "Failed")  # there is no run in this folder


@pytest.mark.timeout(600)
def test_a_night_waits_for_none_before_it_and_a_lost_one_says_so(
    deployed: Deployed, tmp_path: Path
) -> None:
    where = {"input": str(tmp_path / "absent"), "output": str(tmp_path / "out")}
    first = deployed.submit("process-dataset/nightly", **where)
    deployed.wait_for(first, "Submitting")
    while not (pids := processes_with(f"PREFECT__FLOW_RUN_ID={first}")):
        time.sleep(0.2)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # as if the power of its host had gone
    second = deployed.submit("process-dataset/nightly", **where)
    assert deployed.wait_for(second, "Cancelled") == "Deployment concurrency limit reached."
    message = deployed.wait_for(first, "Crashed")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert message.startswith("no sign of life for 180 s")


@pytest.mark.timeout(600)
def test_nights_are_scheduled(deployed: Deployed) -> None:
    name = "process-dataset/nightly"
    deployed.prefect("deployment", "schedule", "create", name, "--cron=0 2 * * *")
    try:
        nightly = {"deployments": {"name": {"any_": ["nightly"]}}}
        scheduled = {"flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}}}
        while len(runs := deployed.ask("flow_runs/filter", "POST", **nightly, **scheduled)) < 3:
            time.sleep(1)
    finally:
        deployed.prefect("deployment", "schedule", "clear", name, "--accept-yes")
    nights = [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
    assert {night.strftime("%H:%M %Z") for night in nights} == {"02:00 UTC"}
    assert len({night.date() for night in nights}) == len(nights)


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
    for key, kind in {"summary": "markdown", "files": "table", "timelines": "markdown"}.items():
        artifact = deployed.ask(f"artifacts/{key}/latest")
        assert (artifact["type"], artifact["description"]) == (kind, f"`{out}`")

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


@pytest.mark.timeout(900)
def test_deployments_train_and_evaluate(deployed: Deployed, tmp_path: Path) -> None:
    data, recipe, out = make_bars(tmp_path / "data"), tmp_path / "bars.yaml", tmp_path / "out"
    recipe.write_text(bars_recipe(network="resnet-compact").model_dump_json())  # JSON is YAML
    where = {"config": str(recipe), "data": str(data), "output": str(out)}
    train = "train-model/on-demand"

    state, message = deployed.run(train, **where, overrides=["epoch=3"])
    assert state == "FAILED"
    assert "epoch" in message

    state, message = deployed.run(train, **where, timeout_s=0.5)
    assert state == "FAILED"
    assert "killed" in message

    state, message = deployed.run(train, **where, overrides=["epochs=3"], device="cpu")
    assert (state, message) == ("COMPLETED", f"weights: {out}")
    assert len(pd.read_csv(out / "metrics.csv")) == 3

    state, message = deployed.run(
        "evaluate-models/on-demand",
        weights=[str(out / "bars.safetensors")],
        dataset="fer2013",
        data=str(data),
        output=str(tmp_path / "scores"),
    )
    assert (state, message) == ("COMPLETED", f"tables: {tmp_path / 'scores'}")
    assert deployed.artifact("models") == (tmp_path / "scores" / "models.md").read_text()


@pytest.mark.timeout(900)
def test_deployment_sweeps(deployed: Deployed, tmp_path: Path) -> None:
    data, config, out = make_bars(tmp_path / "data"), tmp_path / "sweep.yaml", tmp_path / "out"
    values = {
        "recipe": bars_recipe(network="resnet-compact", epochs=1).model_dump(),
        "space": {"seed": [0, 1]},
    }
    config.write_text(json.dumps(values))
    state, message = deployed.run(
        "sweep-model/on-demand", config=str(config), data=str(data), output=str(out)
    )
    assert (state, message) == ("COMPLETED", f"table: {out / 'sweep.csv'}")
    assert pd.read_csv(out / "sweep.csv")["state"].tolist() == ["complete"] * 2
    assert deployed.artifact("sweep") == (out / "sweep.md").read_text()
