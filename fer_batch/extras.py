"""What to install where a package of an optional feature is missing."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

EXTRAS = {
    "ipykernel": "notebook",
    "ipywidgets": "notebook",
    "optuna": "train",
    "prefect_dask": "dask",
    "prefect_ray": "ray",
    "s3fs": "s3",
    "scipy": "train",
    "skimage": "demo",
    "sklearn": "train",
    "tensorboard": "train",
    "torchmetrics": "train",
}
"""For a module, the extra of this package that installs it."""


def how_to_install(module: str | None) -> str:
    """The command that installs fer_batch with the extra that a missing module belongs to.

    No package index has fer_batch, so the command names what it was installed from.

    Args:
        module: Name of the missing module; of a dependency that is no extra, fer_batch itself.
    """
    extra = EXTRAS.get((module or "").partition(".")[0])
    return f"pip install {_source(f'[{extra}]' if extra else '')}"


def _source(extra: str) -> str:
    """What pip is given: the folder of the source, or the wheel, that fer_batch comes from."""
    folder = Path(__file__).parents[1]
    if (folder / "pyproject.toml").exists():
        return f"--editable '{folder}{extra}'"
    try:
        record = distribution("fer-batch").read_text("direct_url.json")  # pip writes it, PEP 610
    except PackageNotFoundError:
        record = None
    url = urlsplit(json.loads(record)["url"] if record else "")
    return f"'{url2pathname(url.path) if url.scheme == 'file' else 'fer-batch'}{extra}'"
