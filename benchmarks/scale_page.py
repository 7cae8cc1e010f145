"""Writes the page of benchmarks/scale.py from its measurements."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.measuring import machine

CORES = 2
SHARD_MB = 500
"""The default of the flow."""
HOURS, DAYS = 1_000_000, 30
HOURS_PER_FOLDER = 10_000
N_FILES = 20_000
PRICE = 0.04
"""Price per core and hour, in any currency: an example, not that of a provider."""

Measured = Mapping[str, Any]


def lines(parts: Mapping[str, Measured]) -> Iterator[str]:
    """The whole page."""
    values = {part: each["measured"] for part, each in parts.items()}
    cost = Cost(values["prefect"])
    yield "# Scale"
    yield ""
    yield from machine()
    loads = ", ".join(f"{part} {each['load']:.0f}" for part, each in parts.items())
    yield from prose(
        f"Other work ran on the machine (load averages when a part began: {loads}): CPU time is "
        "given wherever waiting is not the question, and wall time only side by side."
    )
    yield from _workers(values["queue"], values["workers"])
    yield from _files(values["files"])
    yield from _prefect(cost, values["prefect"], values["many"])
    yield from _million(values["work"])
    yield from _bottlenecks(values["workers"], values["work"], values["files"])


def prose(text: str) -> Iterator[str]:
    """A paragraph, or an item of a list."""
    indent = "  " if text.startswith("- ") else ""
    yield from textwrap.wrap(text, 100, subsequent_indent=indent, break_on_hyphens=False)


class Cost:
    """CPU time of Prefect's processes, as a sum of three terms."""

    def __init__(self, prefect: Measured) -> None:
        idle, runs = prefect["idle"], prefect["sleeping"]
        self.idle = _of_server(idle)
        """CPU seconds per second without a run; `per_second` is with a run."""
        terms = [(0, 0, idle["seconds"]), *((1, run["n_tasks"], run["seconds"]) for run in runs)]
        used = [_beside_work(each) for each in (idle, *runs)]
        found = np.linalg.lstsq(np.array(terms, float), np.array(used), rcond=None)[0]
        self.per_run, self.per_shard, self.per_second = map(float, found)


def _beside_work(run: Measured) -> float:
    """CPU time of a run, without the processes that did its shards."""
    return float(run["database"] + run["server"] + run["workers"] - run.get("work_cpu_s", 0))


def _of_server(run: Measured) -> float:
    """Share of a core that server and database used during a run."""
    return float((run["database"] + run["server"]) / run["seconds"])


def _workers(queue: Sequence[Measured], workers: Sequence[Measured]) -> Iterator[str]:
    one = queue[0]
    yield from ("", "## Workers", "")
    yield from prose(
        f"Shards that sleep: each takes {one['shard_s']:g} s from the start of its process to its "
        f"commit; {one['shards']} of them for each worker. Processes take shards as the flow "
        "does; with Prefect, each worker has a run of a deployment, and one server on PostgreSQL "
        "serves all. `gap`: from the end of a shard to the start of the same worker's next, "
        "median. `at work`: what that many workers do with this gap. `whole`: from the first "
        "start to the last end; runs of Prefect start one after the other, and those that are "
        "first wait for the last in the end. Efficiency: of what as many workers would do that "
        "never wait. `start`: from the request to the first shard. `server`: CPU time of Prefect's "
        f"server and its database, from the request to 30 s after the end; {workers[-1]['n']} "
        "workers ask it for runs in every row."
    )
    yield ""
    yield (
        "| | workers | gap, s | at work, shards/min | efficiency | whole, shards/min | "
        "efficiency | start, s | server, % of a core |"
    )
    yield "|:--|--:|--:|--:|--:|--:|--:|--:|--:|"
    for name, runs in (("processes", queue), ("with Prefect", workers)):
        for run in runs:
            steady, whole = (
                f"{run[key]:.1f} | {run[key] * run['shard_s'] / 60 / run['n']:.2f}"
                for key in ("steady_per_minute", "per_minute")
            )
            more = f"{run['start_s']:.0f} | {100 * _of_server(run):.1f}" if "server" in run else "|"
            yield f"| {name} | {run['n']} | {run['gap_s']:.2f} | {steady} | {whole} | {more} |"


def _files(files: Mapping[str, Measured]) -> Iterator[str]:
    yield from ("", "## Many files", "")
    yield from prose(
        "Runs over files that are empty but for their size, whose rows are written as `fer-batch "
        "work` writes them, by one process, in memory (tmpfs). CPU seconds. The peak is that of "
        "the whole process, with Python, Arrow and pandas."
    )
    yield ""
    yield f"| | {' | '.join(files)} |"
    yield f"|:--|{'--:|' * len(files)}"
    for phase in next(iter(files.values()))["cpu_s"]:
        cells = (f"{run['cpu_s'][phase]:.2f}" for run in files.values())
        yield f"| {phase} | {' | '.join(cells)} |"
    rows = {
        "shards": lambda run: f"{run['n_shards']:,}",
        "look at all claims once, ms": lambda run: f"{run['poll_ms']:.1f}",
        "peak MB": lambda run: f"{run['peak_mb']:.0f}",
        "MB of tables without a frame": lambda run: f"{sum(run['bytes'].values()) / 1e6:,.1f}",
    }
    for name, cell in rows.items():
        yield f"| {name} | {' | '.join(map(cell, files.values()))} |"


def _prefect(cost: Cost, prefect: Measured, many: Measured) -> Iterator[str]:
    real, runs = prefect["real"], prefect["sleeping"]
    numbers = " or ".join(map(str, sorted({run["n_tasks"] for run in runs})))
    yield from ("", "## What Prefect costs", "")
    yield from prose(
        "CPU time of database, server, worker and flow run, without the processes that do the "
        f"shards. Fitted to {len(runs)} runs of {numbers} shards that sleep, and to "
        f"{prefect['idle']['seconds']:.0f} s without any: {cost.per_run:.1f} s per run, "
        f"{cost.per_shard:.2f} s per shard, and {100 * cost.per_second:.1f} % of a core all the "
        f"time ({100 * cost.idle:.1f} % without a run)."
    )
    yield ""
    yield from prose(
        f"A real run of {real['n_tasks']} shards (videos of a minute, 720p, every frame) took "
        f"{_beside_work(real):.0f} s of Prefect ({cost.per_second * real['seconds']:.0f} s of it "
        f"by what it takes all the time) and {real['work_cpu_s']:.0f} s of work; "
        f"`fer-batch process` took {prefect['cli_cpu_s']:.0f} s for the same videos. It imports "
        "nothing of Prefect (`tests/test_cli.py`)."
    )
    yield ""
    always, took = cost.per_second * many["seconds"], _beside_work(many)
    yield from prose(
        f"**A run of {many['videos']} such videos** at 5 frames/s, in {many['n_tasks']} shards: "
        f"{many['work_cpu_s']:,.0f} s of work and {took:.0f} s of Prefect, "
        f"{100 * took / many['work_cpu_s']:.1f} %; without what it takes all the time "
        f"{took - always:.0f} s, {100 * (took - always) / many['work_cpu_s']:.2f} %."
    )


def _million(work: Measured) -> Iterator[str]:
    yield from ("", "## A million hours", "")
    yield from prose(
        "An estimate from the figures on this page: nothing of this size was run, and nothing on "
        f"a GPU. 720p, {work['mb_per_hour']:.0f} MB per hour of video, one face, all cores busy "
        f"for {DAYS} days. Cost is core-hours times a price; {PRICE} per core-hour is an example, "
        "not a provider's, and storage and network come on top."
    )
    yield ""
    yield (
        "| | CPU s per hour | cores | core-hours per 1,000 hours | at the example price | "
        "tables, MB per hour | tables, TB |"
    )
    yield "|:--|--:|--:|--:|--:|--:|--:|"
    for sampling, hour in _samplings(work):
        core_hours = 1000 * hour["cpu_s"] / 3600
        yield (
            f"| {sampling} | {hour['cpu_s']:,.0f} | {HOURS / 1000 * core_hours / DAYS / 24:,.0f} | "
            f"{core_hours:,.0f} | {core_hours * PRICE:.2f} | {hour['bytes'] / 1e6:.1f} | "
            f"{HOURS * hour['bytes'] / 1e12:.1f} |"
        )


def _bottlenecks(runs: Sequence[Measured], work: Measured, files: Measured) -> Iterator[str]:
    run = files[f"{N_FILES:,} videos"]
    seconds = DAYS * 86_400
    megabytes = HOURS * work["mb_per_hour"]
    n_shards = megabytes / SHARD_MB
    n_folders = HOURS // HOURS_PER_FOLDER
    workers = HOURS * work["every frame"]["cpu_s"] / seconds / CORES
    prefect = workers * _of_server(runs[-1]) / runs[-1]["n"]
    look_s = run["poll_ms"] / 1e3 / run["n_shards"] * n_shards
    file_s = run["cpu_s"]["plan again: nothing to do"] / N_FILES
    yield ""
    yield from prose(
        f"- **First bottleneck: all in one output folder.** {n_shards:,.0f} shards of {SHARD_MB} "
        f"MB: who looks for the next one lists the claims of all, {look_s:.1f} s of CPU, or "
        f"{2 * n_shards / 1000:,.0f} requests to an object store that lists 1,000 names at a "
        f"time. So the archive is cut into {n_folders} data sets of {HOURS_PER_FOLDER:,} hours "
        f"with an output folder each: {n_shards / n_folders:,.0f} shards, "
        f"{1e3 * look_s / n_folders:.0f} ms."
    )
    yield from prose(
        f"- **Then the Prefect server.** {workers:,.0f} workers of {CORES} cores take "
        f"{prefect:.1f} cores of server and database, if each takes its share of the last row "
        "of the first table, with its short shards: several servers, as data sets know nothing of "
        "each other, or fewer and larger workers."
    )
    yield from prose(
        f"- **Then the network.** {megabytes / 1e6:,.0f} TB of video in {DAYS} days are "
        f"{megabytes * 8 / 1e3 / seconds:.1f} Gbit/s, whatever the sampling."
    )
    yield from prose(
        f"- Asking whether anything is new costs {1e3 * file_s:.2f} ms of CPU per file that is "
        f"done: {HOURS * file_s / 60:.0f} minutes for a million files of an hour, 60 times that "
        "for files of a minute. Data sets that are complete need not be asked."
    )


def _samplings(work: Measured) -> list[tuple[str, Measured]]:
    return [(name, hour) for name, hour in work.items() if isinstance(hour, dict)]
