"""What lint-imports cannot see: nothing runs at import, modules and functions stay short."""

import ast
from pathlib import Path

import pytest

from tests.support import ROOT

MODULES = sorted(
    path.relative_to(ROOT / "fer_batch").with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "fer_batch").rglob("*.py")
)


def source(module: str) -> Path:
    return ROOT / "fer_batch" / f"{module.replace('.', '/')}.py"


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
