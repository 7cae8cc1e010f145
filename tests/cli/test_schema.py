"""The data dictionary on the command line."""

import json
import subprocess
import sys

import pytest

from fer_batch.results.columns import EXPLANATIONS, TABLES
from tests.support.command import run


def test_people_read_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema") == 0
    text = capsys.readouterr().out
    for name, table in (*TABLES.items(), ("explanations", EXPLANATIONS)):
        section = text.partition(f"{name}: ")[2].partition("\n\n")[0]
        lines = [line.split()[0] for line in section.splitlines() if not line.startswith(" ")]
        assert [*dict.fromkeys(lines)][-len(table.columns) :] == table.schema.names
    words = " ".join(text.split())
    assert "points_px 10 numbers pixels" in words
    assert "is_damaged true or false Whether the frame was read with errors." in words


def test_programs_read_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema", "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    tables = (*TABLES.items(), ("explanations", EXPLANATIONS))
    assert [(entry["table"], entry["column"]) for entry in entries] == [
        (name, column) for name, table in tables for column in table.schema.names
    ]
    by_name = {(entry["table"], entry["column"]): entry for entry in entries}
    assert by_name["faces", "track_id"] == {
        "table": "faces",
        "column": "track_id",
        "type": "int32",
        "unit": None,
        "nullable": True,
        "description": TABLES["faces"].columns[4].description,
    }
    assert by_name["faces", "emotion"]["type"] == "string"
    assert by_name["media", "width_px"]["unit"] == "pixels"


def test_it_does_not_wait_for_torch() -> None:
    code = "import sys; from fer_batch.cli.main import main\ntry: main(['schema'])\nfinally: "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("False\n")
