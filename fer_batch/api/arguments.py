"""What callers of the Python API give: settings, folders and URLs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fer_batch.config import Config, load
from fer_batch.errors import ConfigError
from fer_batch.storage import urls

SettingsLike = Config | Mapping[str, object] | str | Path | None
"""A dict (``{"sampling.fps": 5}`` or ``{"sampling": {"fps": 5}}``), the path of a YAML file, a
whole `Config`, or None."""


def configure(settings: SettingsLike, base: Config | None = None) -> Config:
    """The configuration that settings mean.

    Args:
        settings: A `Config` is taken as it is; the others replace values of `base`.
        base: The defaults if None.

    Raises:
        ConfigError: The file cannot be read, or a name or value is wrong; every problem is named.
    """
    if isinstance(settings, Config):
        return settings
    if settings is None:
        return base or Config()
    if isinstance(settings, Mapping):
        return load(None, settings, base=base)
    if isinstance(settings, str | Path):
        return load(Path(settings).expanduser(), base=base)
    raise ConfigError(
        "settings: expected a dict, the path of a YAML file or a fer_batch.Config, "
        f"got {type(settings).__name__}"
    )


def place(path: str | Path) -> Path:
    """A local path, in which ``~`` is the home folder, or a URL to be used like one.

    Raises:
        ConfigError: The protocol of the URL is not known, or its package is missing.
    """
    path = urls.path_of(path)
    return path if urls.is_url(path) else path.expanduser()
