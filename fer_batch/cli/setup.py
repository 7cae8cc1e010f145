"""``fer-batch`` commands that set things up: settings files to edit, Prefect, its deployments."""

from __future__ import annotations

import argparse
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fer_batch.cli.options import Commands

# Everything else is imported where it is used: --help must not wait for pydantic.


def add_commands(commands: Commands) -> None:
    """Add the commands of this module to the parser of ``fer-batch``."""
    template = commands.add_parser(
        "template",
        help="copy a settings file that comes with fer_batch, to edit it",
        description="Copy settings files that come with fer_batch into the current folder. "
        "Without names, list them.",
    )
    template.add_argument("names", nargs="*", metavar="NAME", help="name of a settings file")
    template.set_defaults(run=_template, verbose=False)

    serve = commands.add_parser(
        "serve",
        help="run Prefect here: server, deployments and workers, until Ctrl-C",
        description="Start a Prefect server, put the deployments on it, and start one worker for "
        "each GPU, or one where there is no GPU. Ctrl-C stops all of them.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=4200, help="port to listen on (4200)")
    serve.set_defaults(run=_serve, verbose=False)

    deploy = commands.add_parser(
        "deploy",
        help="put the deployments on a Prefect server, or bring them up to date",
        description="Put the work pool, the deployments and the automations on the Prefect server "
        "of PREFECT_API_URL. The deployments are those of prefect.yaml in the current folder; "
        "where there is none, those that come with fer_batch. Run it again after an upgrade, and "
        "after a change of prefect.yaml.",
    )
    deploy.add_argument("--slots", type=int, metavar="N", help="runs that the pool allows at once")
    deploy.add_argument(
        "--wait", type=float, default=0, metavar="S", help="seconds to wait for the server (0)"
    )
    deploy.set_defaults(run=_deploy, verbose=False)


def _template(parsed: argparse.Namespace) -> int:
    from fer_batch.errors import ConfigError
    from fer_batch.settings import CONFIGS

    shipped = {path.name: path for path in sorted(CONFIGS.rglob("*.*")) if path.is_file()}
    if unknown := [name for name in parsed.names if name not in shipped]:
        raise ConfigError(f"no settings file {unknown[0]}: there are {', '.join(shipped)}")
    for name in parsed.names:
        with shipped[name].open("rb") as source, Path(name).open("xb") as copy:
            shutil.copyfileobj(source, copy)
    if not parsed.names:
        width = max(map(len, shipped))
        for name, path in shipped.items():
            first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            print(f"{name:<{width}}  {first.partition('. ')[0].rstrip('.')}")
    return 0


def _serve(parsed: argparse.Namespace) -> int:
    _flows("serve").serve(parsed.host, parsed.port)
    return 0


def _deploy(parsed: argparse.Namespace) -> int:
    _flows("deploy").deploy(parsed.slots, parsed.wait)
    return 0


def _flows(name: str) -> Any:
    """A module of the flows; the library itself works without them and without Prefect."""
    for needed in ("prefect", "fer_batch_flows"):
        if not find_spec(needed):
            raise ModuleNotFoundError(f"No module named {needed!r}", name=needed)
    return import_module(f"fer_batch_flows.{name}")
