"""``fer-batch`` commands around models: their networks, data, training, sweeps and evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.cli.console import place, progress_bar

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    import pandas as pd

    from fer_batch.training.log import Epoch

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands, spoken: argparse.ArgumentParser) -> None:
    """Add the commands of this module to the parser of ``fer-batch``."""
    models = commands.add_parser("models", parents=[spoken], help="table of the networks")
    models.add_argument("--classes", type=_positive, default=6, metavar="N", help="outputs (6)")
    models.set_defaults(run=_models)

    _add_data(commands, [_labelled(), spoken])
    _add_learning(commands, [_device(), spoken])
    _add_evaluate(commands, [_labelled(), _device(), spoken])

    disfa = commands.add_parser(
        "disfa",
        parents=[spoken],
        help="compare a run over DISFA's videos with its action units",
    )
    disfa.add_argument("results", type=place, metavar="RESULTS", help="output folder of the run")
    disfa.add_argument("--data", required=True, type=Path, help="DISFA's root folder")
    disfa.add_argument("-o", "--out", required=True, type=Path, metavar="FILE", help="CSV to write")
    disfa.set_defaults(run=_disfa)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, found {text}")
    return number


def _device() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    return parser


def _labelled() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="how to read it")
    _add_root(parser)
    return parser


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", required=True, type=Path, help="root of the data set, or a packed file"
    )


def _add_data(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    data = commands.add_parser(
        "data",
        parents=parents,
        help="count the pictures of a data set, find its duplicates, pack it",
        description="Count the pictures of each emotion and split, as a training takes them.",
    )
    data.add_argument("--labels", choices=("six", "seven", "eight"), help="only these emotions")
    data.add_argument(
        "--size", type=_positive, default=48, metavar="PX", help="side of pictures (48)"
    )
    data.add_argument("--pack", type=Path, metavar="FILE", help="write it as one .safetensors file")
    data.add_argument(
        "--duplicates",
        type=Path,
        metavar="FILE",
        help="CSV for the pictures that stand in two splits, or twice with two emotions in one; "
        "they are counted then, not left out",
    )
    data.set_defaults(run=_data)


def _add_learning(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        parents=parents,
        help="train a classifier",
        description="Train a classifier. Run again with the same recipe and folder, it goes on "
        "from the last whole epoch.",
    )
    train.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, stronger than the file; may be given many times",
    )
    train.add_argument("--force", action="store_true", help="begin anew")
    train.set_defaults(run=_train)

    sweep = commands.add_parser(
        "sweep",
        parents=parents,
        help="train with many settings and compare them",
        description="Train with many settings. Run again with the same folder, it goes on; run at "
        "the same time in several places, it shares the work.",
    )
    sweep.set_defaults(run=_sweep)

    for command in (train, sweep):
        command.add_argument("--config", required=True, type=Path, metavar="FILE", help="YAML file")
        _add_root(command)
        command.add_argument("-o", "--out", required=True, type=Path, help="folder for the results")


def _add_evaluate(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser(
        "evaluate", parents=parents, help="measure models on labelled pictures"
    )
    evaluate.add_argument("weights", nargs="+", metavar="MODEL", help="default, a name or a file")
    evaluate.add_argument("-o", "--out", required=True, type=Path, help="folder for the results")
    evaluate.add_argument("--split", choices=("train", "valid", "test"), default="test")
    evaluate.add_argument("--flip", action="store_true", help="average with the mirror image")
    evaluate.add_argument("--decimals", type=_positive, metavar="N", help="of scores.csv (all)")
    evaluate.set_defaults(run=_evaluate)


def _models(parsed: argparse.Namespace) -> int:
    from fer_batch.models.networks import NETWORKS, describe

    facts = [describe(name, parsed.classes) for name in NETWORKS]
    _print_table(
        ("network", "parameters", "MACs", "MB", "input"),
        (
            (
                each.name,
                f"{each.parameters:,}",
                f"{each.macs:,}",
                f"{each.file_mb:.1f}",
                f"{each.in_channels}x{each.input_size_px}x{each.input_size_px}",
            )
            for each in facts
        ),
    )
    return 0


def _data(parsed: argparse.Namespace) -> int:
    from fer_batch.datasets.inventory import counts, duplicates
    from fer_batch.datasets.pictures import load_data, pack

    if parsed.pack:
        pack(parsed.dataset, parsed.data, parsed.pack, size_px=parsed.size)
    data = load_data(
        parsed.dataset,
        parsed.pack or parsed.data,
        size_px=parsed.size,
        labels=parsed.labels,
        drop_duplicates=parsed.duplicates is None,
    )
    if not parsed.quiet:
        table = counts(data)
        rows = ([str(emotion), *(f"{n:,}" for n in row)] for emotion, *row in table.itertuples())
        _print_table(("emotion", *table.columns), rows)
        for reason, n in data.dropped.items():
            print(f"left out of train: {n:,} {reason}")
    if parsed.duplicates:
        pairs = duplicates(data)
        pairs.to_csv(parsed.duplicates, index=False)
        if not parsed.quiet:
            kinds = pairs.value_counts(["split", "other_split", "kind"]).reset_index(name="n")
            for split, other, kind, n in kinds.itertuples(index=False):
                print(f"{kind} pictures in {split} and {other}: {n:,} pairs")
    return 0


def _train(parsed: argparse.Namespace) -> int:
    from fer_batch.models.devices import pick_device
    from fer_batch.training.allocator import keep_freed_memory
    from fer_batch.training.recipe import load_recipe
    from fer_batch.training.train import fit, read_data

    keep_freed_memory()
    recipe = load_recipe(parsed.config, parsed.overrides)
    device = pick_device(parsed.device)
    data = read_data(recipe, parsed.data)

    def on_epoch(epoch: Epoch) -> None:
        if not parsed.quiet:
            print(
                f"epoch {epoch.epoch}/{recipe.epochs}: train loss {epoch.train_loss:.4f}, "
                f"valid loss {epoch.valid_loss:.4f}, valid accuracy {epoch.valid_accuracy:.4f}, "
                f"{epoch.seconds:.1f} s",
                flush=True,
            )

    with progress_bar(parsed.quiet) as show:

        def on_step(epoch: int, share: float) -> None:
            show((epoch - 1 + share) / recipe.epochs, f"epoch {epoch}/{recipe.epochs}")

        path = fit(
            recipe,
            data,
            parsed.out,
            device=device,
            resume=not parsed.force,
            on_epoch=on_epoch,
            on_step=on_step,
        )
    print(path)
    return 0


def _sweep(parsed: argparse.Namespace) -> int:
    from fer_batch.models.devices import pick_device
    from fer_batch.training.allocator import keep_freed_memory
    from fer_batch.training.sweep import load_sweep, sweep

    keep_freed_memory()
    config = load_sweep(parsed.config)
    device = pick_device(parsed.device)
    with progress_bar(parsed.quiet) as show:

        def on_trial(table: pd.DataFrame) -> None:
            done = ~table["state"].isin(["running", "waiting"])
            show(float(done.mean()), f"{done.sum()}/{len(done)} trials")

        sweep(config, parsed.data, parsed.out, device=device, on_trial=on_trial)
    if not parsed.quiet:
        print((parsed.out / "sweep.md").read_text(encoding="utf-8"), end="")
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    from fer_batch.evaluation.evaluate import HeldOut, check_names, compare, evaluate, write_table
    from fer_batch.models.card import find_weights
    from fer_batch.models.devices import pick_device

    device = pick_device(parsed.device)
    weights = list(dict.fromkeys(find_weights(name) for name in parsed.weights))
    check_names(weights)
    held_out = HeldOut(parsed.dataset, parsed.data, parsed.split)
    evaluations = []
    with progress_bar(parsed.quiet) as show:
        for number, path in enumerate(weights):
            show(number / len(weights), path.stem)
            evaluations.append(
                evaluate(
                    path,
                    held_out,
                    parsed.out,
                    device=device,
                    flip=parsed.flip,
                    decimals=parsed.decimals,
                )
            )
    write_table(compare(evaluations), parsed.out)
    if not parsed.quiet:
        print((parsed.out / "models.md").read_text(encoding="utf-8"), end="")
        print(f"everything else: {parsed.out}/MODEL/report.md")
    return 0


def _disfa(parsed: argparse.Namespace) -> int:
    from fer_batch.evaluation.action_units import ALL, compare_action_units

    table = compare_action_units(parsed.results, parsed.data)
    table.to_csv(parsed.out, index=False)
    if not parsed.quiet:
        shown = table[table["subject"] == ALL].drop(columns="subject")
        rows = (
            [
                str(camera),
                *(str(value) for value in row[:4]),
                *(f"{value:.2f}" for value in row[4:]),
            ]
            for camera, *row in shown.itertuples(index=False)
        )
        _print_table([name.replace("_", " ") for name in shown.columns], rows)
    return 0


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is text and the others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*titles, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console().print(table)
