"""What several commands have in common: options, their values, an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a module of commands adds them to."""
EXIT_FILES_FAILED = 1


def place(text: str) -> Path:
    """A path or URL of the command line, for argparse."""
    from fer_batch.errors import ConfigError
    from fer_batch.storage.urls import path_of

    try:
        return path_of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def device_option() -> argparse.ArgumentParser:
    """The option that says where a network runs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (auto: the first GPU, or the CPU if there is none)",
    )
    return parser


def dataset_options() -> argparse.ArgumentParser:
    """The options that say which data set is used and where it is."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME",
        help="fer2013, ferplus, rafdb, rafdb-flat, ckplus, tfeid, folders or csv",
    )
    add_data(parser)
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where a data set is."""
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="PATH",
        help="folder of the data set, or the file that `fer-batch data --pack` wrote",
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses a split of a data set."""
    parser.add_argument(
        "--split",
        choices=("train", "valid", "test"),
        default="test",
        help="pictures to use (test)",
    )


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number of at least this much, for argparse."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a number of {least} or more, found {text}")
        return number

    parse.__name__ = "whole number"  # argparse names it where `int` fails
    return parse
