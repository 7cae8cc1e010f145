"""The example package of docs/extending.md, installed."""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import ROOT

_FILE = re.compile(r"^`([\w./]+)`.*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The files that the page shows, by path."""
    return dict(_FILE.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8")))


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str] | None = None
) -> None:
    """Write the package, and what an installer writes about it, where Python finds both.

    Args:
        folder: An empty folder.
        monkeypatch: Uninstalls it.
        changes: Text to put in the place of other text, in all files.
    """
    shown = files()
    for old, new in (changes or {}).items():
        shown = {path: text.replace(old, new) for path, text in shown.items()}
    for path, text in shown.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    project = tomllib.loads(shown["pyproject.toml"])["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_faces"]:
        monkeypatch.delitem(sys.modules, name)
