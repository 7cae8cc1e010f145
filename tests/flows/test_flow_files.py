"""The files of the flows: what they may hold, and that Prefect finds each flow in them."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fer_batch.settings import CONFIGS
from tests.support import ROOT
from tests.support.deployment import SOURCES

FLOWS = sorted((ROOT / "flows" / "fer_batch_flows").glob("*.py"))
ALLOWED = sys.stdlib_module_names | {"prefect", "pydantic", "pydantic_core", "fer_batch"}
ALLOWED |= {"prefect_dask", "prefect_ray"}
LOAD = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
flows = [load_flow_from_entrypoint(path, use_placeholder_flow=False) for path in sys.argv[1:]]
print(json.dumps({flow.name: flow.parameters.required for flow in flows}))
"""


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


def test_every_deployment_loads_its_flow(tmp_path: Path) -> None:
    deployments = yaml.safe_load((CONFIGS / "prefect.yaml").read_text())["deployments"]
    entrypoints = [deployment["entrypoint"] for deployment in deployments]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *entrypoints],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": SOURCES},
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
