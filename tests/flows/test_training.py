"""The flows that train, sweep and evaluate, loaded and run as Prefect does it."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.support import ROOT
from tests.support.bars import bars_recipe, make_bars
from tests.support.deployment import Deployed

LOAD = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
flows = [load_flow_from_entrypoint(path, use_placeholder_flow=False) for path in sys.argv[1:]]
print(json.dumps({flow.name: flow.parameters.required for flow in flows}))
"""


def test_every_deployment_loads_from_its_file(tmp_path: Path) -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entrypoints = [f"{ROOT}/{deployment['entrypoint']}" for deployment in deployments]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *entrypoints],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "process-dataset": ["input", "output"],
        "render-run": ["output"],
        "explain-run": ["output"],
        "train-model": ["config", "data", "output"],
        "sweep-model": ["config", "data", "output"],
        "evaluate-models": ["weights", "dataset", "data", "output"],
    }


@pytest.mark.slow
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


@pytest.mark.slow
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
