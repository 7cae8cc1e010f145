"""Stub."""

from pathlib import Path


def publish(output: Path) -> None: ...
