"""``fer-batch explain`` and ``explain-data``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.api.progress import showing
from fer_batch.cli.options import (
    EXIT_FILES_FAILED,
    Commands,
    add_split,
    dataset_options,
    device_option,
    place,
    whole_number,
)

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.explain.explainer import Explainer
    from fer_batch.explain.face_sources import FaceSelection, FaceSource

METHODS = ("gradcam", "gradcam++", "occlusion", "saliency", "integrated-gradients")


def add_commands(commands: Commands, verbosity: argparse.ArgumentParser) -> None:
    """Add the commands of this module to the parser of ``fer-batch``."""
    explain = commands.add_parser(
        "explain",
        parents=[_choices(), device_option(), verbosity],
        help="show which parts of the faces of a run decided about their emotions",
        description="Explain the faces of a finished run, with the model that it was made with: "
        "heatmaps that show which pixels matter, and numbers that say how far to trust them.",
    )
    explain.add_argument("out", type=place, metavar="OUT", help="output folder of a run")
    explain.add_argument(
        "--media",
        action="append",
        default=[],
        metavar="NAME",
        help="only this file of the run; can be repeated",
    )
    explain.add_argument(
        "--at",
        action="append",
        default=[],
        type=float,
        metavar="SECONDS",
        help="only the frame that a video shows at this time; can be repeated",
    )
    explain.add_argument(
        "-o",
        "--out",
        dest="folder",
        type=place,
        metavar="DIR",
        help="folder for the results (OUT/explain)",
    )
    explain.set_defaults(run=_explain)

    pictures = commands.add_parser(
        "explain-data",
        parents=[_choices(), dataset_options(), device_option(), verbosity],
        help="show which parts of labelled pictures decide about a model's answers",
        description="Explain the pictures of a data set. Each picture is treated as one face.",
    )
    pictures.add_argument("weights", metavar="MODEL", help="default, or a .safetensors file")
    add_split(pictures)
    pictures.add_argument(
        "-o",
        "--out",
        dest="folder",
        required=True,
        type=place,
        metavar="DIR",
        help="folder for the results",
    )
    pictures.set_defaults(run=_explain_data)


def _choices() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="how to explain (gradcam); can be repeated",
    )
    parser.add_argument(
        "--emotion", metavar="NAME", help="explain this emotion (the strongest of each face)"
    )
    parser.add_argument(
        "--sample",
        type=whole_number(0),
        metavar="N",
        help="at most N faces, chosen at random (all)",
    )
    parser.add_argument(
        "--pictures",
        type=whole_number(0),
        default=24,
        metavar="N",
        help="draw at most N faces (24)",
    )
    return parser


def _explain(parsed: argparse.Namespace) -> int:
    from fer_batch.config import Config
    from fer_batch.explain.face_sources import RunFaces
    from fer_batch.models.card import find_weights
    from fer_batch.results import store
    from fer_batch.settings import validate

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
    with showing(not parsed.quiet) as show:
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
