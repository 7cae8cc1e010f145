"""The levels of the library: a module imports strictly lower levels, and nothing runs at import."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"__init__", "schema", "ffmpeg", "markdown", "memory", "stopwatch"},
    {"config", "networks.compact", "networks.gimefive", "networks.vgg", "sprites", "duplicates"}
    | {"downloads", "figures", "urls"},
    {"card", "networks", "media", "tables", "track", "augment", "decode.index", "ribbon", "blur"}
    | {"cache", "claims", "console", "parquet"}
    | {"datasets.samples", "metrics", "training_log", "networks.retinaface"},
    {"weights", "store", "crop", "detectors.haar", "detectors.yunet", "draw", "encode"}
    | {"datasets.files", "plots", "recipe", "detectors.retinaface"}
    | {"decode.demux", "decode.images", "decode.parts", "decode.segments"},
    {"decode.video", "detectors", "classify", "timeline", "explain", "regions"}
    | {"datasets.disfa", "datasets.fer", "datasets.folders", "datasets.rafdb", "learner"},
    {"decode.reader", "plan", "datasets.ckplus", "heat", "moments"}
    | {"faithfulness", "explain_plots", "timeline_plots"},
    {"decode", "annotation", "datasets", "lanes", "mosaic", "manifest"},
    {"finding", "reading", "collect", "pictures", "action_units", "layers"},
    {"pipeline", "render", "train", "evaluate", "inventory"} | {"explain_faces", "pieces"},
    {"sweep", "sheets", "explain_report", "report", "sharding"},
    {"cli_explain", "cli_models", "cli_render", "shard_results"},
    {"shard_work", "supervise"},
    {"cli"},
    {"__main__"},
]
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}
MODULES = sorted(
    path.relative_to(ROOT / "fer_batch").with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "fer_batch").rglob("*.py")
)
PLACEMENT = {module: module.removesuffix(".__init__") for module in MODULES}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
    return found


def source(module: str) -> Path:
    return ROOT / "fer_batch" / f"{module.replace('.', '/')}.py"


def test_every_module_has_a_level() -> None:
    assert set(PLACEMENT.values()) == set(LEVEL)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_lower_levels(module: str) -> None:
    level = LEVEL[PLACEMENT[module]]
    own = {
        name.removeprefix("fer_batch.") for name in imports(source(module)) if "fer_batch." in name
    }
    used = {name for name in own if name in LEVEL}
    assert {name: LEVEL[name] for name in used if LEVEL[name] >= level} == {}


@pytest.mark.parametrize("module", MODULES)
def test_library_does_not_know_prefect(module: str) -> None:
    assert not any(name.split(".")[0] == "prefect" for name in imports(source(module)))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__main__"])
def test_nothing_runs_at_import(module: str) -> None:
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    assert [node.lineno for node in tree.body[1:] if isinstance(node, ast.Expr | ast.For)] == [
        node.lineno
        for node in tree.body[1:]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # docstrings
    ]


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short(module: str) -> None:
    assert len(source(module).read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    }
    assert long == {}
