"""Batch facial emotion recognition: folders of videos and images in, emotion timelines out.

`process` and `open_run` give a `Run`, `Analyzer` works on single pictures: see docs/python.md. What
is used is loaded when it is used: importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_batch.api.analyzer import Analyzer
    from fer_batch.api.process import open_run, process
    from fer_batch.api.run import Run
    from fer_batch.config import Config
    from fer_batch.emotions import EMOTIONS
    from fer_batch.errors import FerError

__version__ = "0.1.0"

__all__ = ["EMOTIONS", "Analyzer", "Config", "FerError", "Run", "open_run", "process"]

_MODULES = {
    "EMOTIONS": "emotions",
    "Analyzer": "api.analyzer",
    "Config": "config",
    "FerError": "errors",
    "Run": "api.run",
    "open_run": "api.process",
    "process": "api.process",
}

if not TYPE_CHECKING:  # a type checker that sees this function believes every name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
