"""What the commands share: paths and URLs as arguments."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path


def place(text: str) -> Path:
    """A path or URL of the command line, for argparse."""
    from fer_batch.errors import ConfigError
    from fer_batch.storage.urls import path_of

    try:
        return path_of(text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from error
