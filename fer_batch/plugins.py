"""Detectors and classifiers that other installed packages bring, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from fer_batch.errors import ConfigError

DETECTORS = "fer_batch.detectors"
CLASSIFIERS = "fer_batch.classifiers"
"""Groups of entry points."""


def names(group: str) -> list[str]:
    """The names in a group, sorted; nothing is loaded."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any:
    """What an entry point of a group leads to.

    Raises:
        ConfigError: It cannot be loaded.
    """
    [entry] = entry_points(group=group, name=name)
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        package = entry.dist.name if entry.dist else "?"
        raise ConfigError(
            f"{name}: the package {package} brings it as {entry.value}, which cannot be loaded: "
            f"{error}"
        ) from error


def versions(group: str, name: str) -> dict[str, str]:
    """The package that brings a name, and its version; empty if none does."""
    packages = [entry.dist for entry in entry_points(group=group, name=name)]
    return {package.name: package.version for package in packages if package}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an error's text, such as " (did you mean 'yunet'?)"; empty if nothing is close."""
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
