"""``fer-batch schema``: what every column of the tables means."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fer_batch.cli.options import Commands

# Everything else is imported where it is used: --help must not wait for pyarrow.
if TYPE_CHECKING:
    import pyarrow as pa

    from fer_batch.results.tables import Table

PLAIN_TYPES = {"string": "text", "bool": "true or false", "float": "number", "double": "number"}
"""Names of Arrow types for people; all other single values are whole numbers."""


def add_command(commands: Commands) -> None:
    """Add the command to the parser of ``fer-batch``."""
    schema = commands.add_parser(
        "schema",
        help="what every column of the tables means",
        description="Print every column of the tables media, frames, faces and explanations: its "
        "type, its unit and what it means.",
    )
    schema.add_argument("--json", action="store_true", help="print JSON, for other programs")
    schema.set_defaults(run=_schema, verbose=False)


def _schema(parsed: argparse.Namespace) -> int:
    if parsed.json:
        _print_json()
    else:
        _print_tables()
    return 0


def _tables() -> Iterator[tuple[str, Table]]:
    from fer_batch.results.columns import EXPLANATIONS, TABLES

    yield from TABLES.items()
    yield "explanations", EXPLANATIONS


def _print_json() -> None:
    entries = [
        {
            "table": name,
            "column": column.name,
            "type": str(column.value_type),
            "unit": column.unit,
            "nullable": column.is_nullable,
            "description": column.description,
        }
        for name, table in _tables()
        for column in table.columns
    ]
    print(json.dumps(entries, indent=2))


def _print_tables() -> None:
    from rich import table as rich_table
    from rich.console import Console

    console = Console()
    for name, table in _tables():
        shown = rich_table.Table("column", "type", "unit", "meaning", box=None, pad_edge=False)
        for column in table.columns:
            shown.add_row(column.name, _plain(column.value_type), column.unit, column.description)
        console.print(f"{name}: {table.description}", shown, "", sep="\n")


def _plain(value_type: pa.DataType) -> str:
    if hasattr(value_type, "list_size"):
        return f"{value_type.list_size} numbers"
    return PLAIN_TYPES.get(str(value_type), "whole number")
