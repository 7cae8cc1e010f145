"""``fer-batch`` commands that explain what a model sees in faces."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.cli.console import place, progress_bar

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.explain.explainer import Explainer
    from fer_batch.explain.face_sources import FaceSelection, FaceSource

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_FILES_FAILED = 1
METHODS = ("gradcam", "gradcam++", "occlusion", "saliency", "integrated-gradients")


def add_commands(commands: Commands, spoken: argparse.ArgumentParser) -> None:
    """Add the commands of this module to the parser of ``fer-batch``."""
    explain = commands.add_parser(
        "explain",
        parents=[_what(), spoken],
        help="why a run saw what it saw: heatmaps of its faces, and numbers",
        description="Explain the faces of a finished run with the weights that it was made with.",
    )
    explain.add_argument("out", type=place, metavar="OUT", help="output folder of a run")
    explain.add_argument(
        "--media", action="append", default=[], metavar="NAME", help="only this file of the run"
    )
    explain.add_argument(
        "--at",
        action="append",
        default=[],
        type=float,
        metavar="SECONDS",
        help="only the frame that a video shows at this time",
    )
    explain.add_argument(
        "-o", "--folder", type=place, metavar="DIR", help="folder for the results (OUT/explain)"
    )
    explain.set_defaults(run=_explain)

    pictures = commands.add_parser(
        "explain-data",
        parents=[_what(), spoken],
        help="why a model sees what it sees in labelled pictures",
        description="Explain the pictures of a data set; each is taken for one face.",
    )
    pictures.add_argument("weights", metavar="MODEL", help="default, a name or a file")
    pictures.add_argument("--dataset", required=True, metavar="NAME", help="how to read it")
    pictures.add_argument(
        "--data", required=True, type=Path, help="root of the data set, or a packed file"
    )
    pictures.add_argument("--split", choices=("train", "valid", "test"), default="test")
    pictures.add_argument(
        "-o", "--folder", required=True, type=place, metavar="DIR", help="folder for the results"
    )
    pictures.set_defaults(run=_explain_data)


def _what() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="how to explain (gradcam); this and what else names things may be given many times",
    )
    parser.add_argument(
        "--emotion", metavar="NAME", help="explain this one, not each face's strongest"
    )
    parser.add_argument(
        "--sample", type=_count, metavar="N", help="at most N faces, chosen at random (all)"
    )
    parser.add_argument(
        "--pictures", type=_count, default=24, metavar="N", help="draw at most N faces (24)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, found {text}")
    return number


def _explain(parsed: argparse.Namespace) -> int:
    from fer_batch.config import Config, validate
    from fer_batch.explain.face_sources import RunFaces
    from fer_batch.models.card import find_weights
    from fer_batch.results import store

    config = validate(Config, store.read_run(parsed.out)["config"])
    explainer = _explainer(parsed, find_weights(config.classifier.weights))
    with store.lock(parsed.out, shared=True):
        faces = RunFaces(parsed.out, config, explainer.card, _selection(parsed))
        return _write(parsed, faces, explainer, parsed.folder or parsed.out / "explain")


def _explain_data(parsed: argparse.Namespace) -> int:
    from fer_batch.datasets.pictures import load_data
    from fer_batch.explain.face_sources import PictureFaces
    from fer_batch.models.card import find_weights

    explainer = _explainer(parsed, find_weights(parsed.weights))
    size_px = explainer.card.input_size_px
    data = load_data(parsed.dataset, parsed.data, size_px=size_px, splits=(parsed.split,))
    faces = PictureFaces(data.pictures[parsed.split], explainer, _selection(parsed))
    return _write(parsed, faces, explainer, parsed.folder)


def _explainer(parsed: argparse.Namespace, weights: Path) -> Explainer:
    from fer_batch.explain.explainer import Explainer
    from fer_batch.models.devices import pick_device

    return Explainer(weights, pick_device(parsed.device))


def _selection(parsed: argparse.Namespace) -> FaceSelection:
    from fer_batch.explain.face_sources import FaceSelection

    return FaceSelection(
        media=tuple(getattr(parsed, "media", ())),
        at_s=tuple(getattr(parsed, "at", ())),
        emotion=parsed.emotion,
        sample=parsed.sample,
        max_drawn=parsed.pictures,
    )


def _write(
    parsed: argparse.Namespace, faces: FaceSource, explainer: Explainer, folder: Path
) -> int:
    from fer_batch.errors import ExplainError
    from fer_batch.explain.report import explain

    code = 0
    with progress_bar(parsed.quiet) as show:
        try:
            explain(
                faces,
                explainer,
                folder,
                list(dict.fromkeys(parsed.method or ["gradcam"])),
                on_progress=lambda n, n_faces: show(n / n_faces, f"{n:,}/{n_faces:,} faces"),
            )
        except ExplainError as error:
            print(f"fer-batch: {error}", file=sys.stderr)
            code = EXIT_FILES_FAILED
    if not parsed.quiet and (folder / "summary.md").is_file():
        print((folder / "summary.md").read_text(encoding="utf-8"), end="")
        print(f"everything else: {folder}")
    return code
