"""Faces explained and written to a folder: a table, its summary, and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from tabulate import tabulate

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ExplainError
from fer_batch.explain import plots
from fer_batch.explain.explainer import Explainer, Method
from fer_batch.explain.face_sources import FaceBatch, FaceSource, rebatch
from fer_batch.explain.faithfulness import correlation, deletion, insertion, shares
from fer_batch.explain.plots import MeanMaps
from fer_batch.explain.regions import REGIONS, aligned, masks
from fer_batch.models.card import ModelCard
from fer_batch.records import Bytes, Floats, Ints
from fer_batch.results.columns import EXPLANATIONS, VERSION
from fer_batch.results.parquet import TableFile, writing
from fer_batch.storage import urls

TABLE = "explanations.parquet"
CHANCE = "chance"
"""The method, in the table, of a map that is the same everywhere: real methods should do better."""
FACES_AT_ONCE = 64
ALL = "all"

_KEYS = ["emotion", "method"]
_NAMES = pd.Index(EMOTIONS)
_NOTES = """\
Means over the faces, for the emotion that was explained. **deletion**: score while the most
important pixels become grey, low is good; **insertion**: while those of a blurred face become
sharp, high is good (Petsiuk et al., 2018). **mouth, eyes, brows, outside**: where the positive part
of the map lies. **random**: rank correlation with the map of a network with random weights; about 0
is good (Adebayo et al., 2018). **chance**: a map that is the same everywhere.
"""


def explain(
    faces: FaceSource,
    explainer: Explainer,
    out: Path,
    methods: Sequence[Method],
    *,
    on_progress: Callable[[int, int], None] = lambda n_done, n_faces: None,
) -> pd.DataFrame:
    """Explain faces and write the results to a folder.

    ``explanations.parquet`` has a row per face and method, ``summary.csv`` and ``summary.md`` their
    means, ``emotions/`` a page per emotion, ``faces/`` pictures of the faces that are to be drawn.
    Results of an earlier call are replaced. Memory does not grow with the number of faces.

    Args:
        faces: The faces to explain.
        explainer: Explains the classifier.
        out: Folder for the results, made if it is missing.
        methods: Methods of explanation, each once.
        on_progress: Called with the number of faces done and the number of all faces.

    Returns:
        The summary: see `summarise`.

    Raises:
        ExplainError: Some files failed: the text names them, everything else is done.
        StoreError: The folder cannot be written.
    """
    _clear(out)
    with ExitStack() as stack:
        folder = stack.enter_context(urls.local_folder(out))
        summary = _explain(faces, explainer, folder, methods, on_progress)
        with writing(out):
            stack.close()
    if faces.failures:
        counts = f"{len(faces.failures)} files could not be explained completely"
        raise ExplainError("\n".join([f"{counts}:", *faces.failures]))
    return summary


def _explain(
    faces: FaceSource,
    explainer: Explainer,
    out: Path,
    methods: Sequence[Method],
    on_progress: Callable[[int, int], None],
) -> pd.DataFrame:
    randomised = explainer.randomised(seed=0)
    means: dict[int, MeanMaps] = defaultdict(MeanMaps)
    table = _open_table(out, explainer.card)
    n_done = 0
    try:
        for batch in rebatch(faces, FACES_AT_ONCE):
            maps = {
                method: explainer.maps(batch.crops, batch.emotion, method) for method in methods
            }
            rows = _measure(batch, maps, explainer, randomised)
            _add_to_means(means, batch, maps, explainer.card)
            with writing(out):
                table.append(rows)
                for row in np.flatnonzero(batch.is_drawn):
                    _draw(batch, int(row), methods, explainer, out / "faces")
            n_done += len(batch)
            on_progress(n_done, len(faces))
        if not n_done:
            raise ExplainError("\n".join(["no face could be explained:", *faces.failures]))
        with writing(out):
            table.commit()
    finally:
        table.discard()
    return _write_summary(means, explainer.card, out)


def summarise(path: Path) -> pd.DataFrame:
    """Means of an explanations table by emotion and method; the emotion ``all`` comes last.

    Returns:
        emotion, method, n (faces), score, deletion_auc, insertion_auc, mouth_share, eyes_share,
        brows_share, outside_share, random_correlation. A mean leaves out faces without a value, and
        is missing if no face has one.
    """
    values = [column.name for column in EXPLANATIONS.schema if column.type == pa.float32()]
    table = pd.read_parquet(path, columns=[*_KEYS, *values])
    parts = []
    for rows in (table, table.assign(emotion=ALL)):
        groups = rows.astype({key: str for key in _KEYS}).groupby(_KEYS)
        parts.append(groups[values].mean().assign(n=groups.size()).reset_index())
    summary = pd.concat(parts, ignore_index=True)[[*_KEYS, "n", *values]]
    emotions, methods = [*EMOTIONS, ALL], [*dict.fromkeys(table["method"])]
    ranks = {name: rank for rank, name in enumerate([*emotions, *methods])}
    summary["rank"] = [
        len(ranks) * ranks[emotion] + ranks[method]
        for emotion, method in zip(summary["emotion"], summary["method"], strict=True)
    ]
    return summary.sort_values("rank", ignore_index=True).drop(columns="rank")


def _write_summary(means: Mapping[int, MeanMaps], card: ModelCard, out: Path) -> pd.DataFrame:
    """Write the summary and the page of each emotion."""
    summary = summarise(out / TABLE)
    with writing(out):
        (out / "emotions").mkdir(exist_ok=True)
        for code, mean in means.items():
            path = out / "emotions" / f"{EMOTIONS[code]}.png"
            plots.emotion_page(mean, code, card.name, path)
        summary.to_csv(out / "summary.csv", index=False)
        (out / "summary.md").write_text(_markdown(summary, card), encoding="utf-8")
    return summary


def _clear(out: Path) -> None:
    """Remove the results of an earlier call."""
    with writing(out):
        if (out / TABLE).exists():
            for folder in ("emotions", "faces"):
                urls.remove_folder(out / folder)
            for name in ("summary.csv", "summary.md"):
                (out / name).unlink(missing_ok=True)


def _open_table(out: Path, card: ModelCard) -> TableFile:
    metadata = {
        "fer_batch.schema_version": VERSION,
        "fer_batch.model_card": card.model_dump_json(),
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        return TableFile(out / TABLE, EXPLANATIONS.schema.with_metadata(metadata))


def _measure(
    batch: FaceBatch, maps: Mapping[Method, Floats], explainer: Explainer, randomised: Explainer
) -> pa.Table:
    """The rows of a batch in the table, for each method and for chance."""
    crops, emotion = batch.crops, batch.emotion
    side = crops.shape[-1]
    inside = masks(batch.points_px, side)
    flat = np.ones((len(batch), side, side), np.float32)
    face = {
        "media": batch.media,
        "frame_index": batch.frame_index,
        "pts_s": batch.pts_s,
        "face_index": batch.face_index,
        "track_id": pd.Series(batch.track_id).where(batch.track_id >= 0),
        "label": pd.Categorical.from_codes(batch.label, _NAMES),
        "emotion": pd.Categorical.from_codes(emotion, _NAMES),
        "score": explainer.scores(crops, emotion),
    }
    compared: dict[str, tuple[Floats, Floats]] = {
        method: (each, randomised.maps(crops, emotion, method)) for method, each in maps.items()
    }
    parts = []
    for name, (each, random) in (compared | {CHANCE: (flat, flat)}).items():
        rows = pd.DataFrame(face).assign(
            method=name,
            deletion_auc=deletion(explainer, crops, emotion, each),
            insertion_auc=insertion(explainer, crops, emotion, each),
            random_correlation=correlation(each, random),
            **{
                f"{region}_share": share
                for region, share in zip(REGIONS, shares(each, inside).T, strict=True)
            },
        )
        parts.append(pa.Table.from_pandas(rows, EXPLANATIONS.schema, preserve_index=False))
    return pa.concat_tables(parts).unify_dictionaries()


def _add_to_means(
    means: dict[int, MeanMaps], batch: FaceBatch, maps: Mapping[Method, Floats], card: ModelCard
) -> None:
    """Add the faces and their maps, aligned, to the means of their emotions."""
    faces = aligned(_pictures(batch, card).astype(np.float32), batch.points_px)
    moved = {method: aligned(each, batch.points_px) for method, each in maps.items()}
    for code in np.unique(batch.emotion).tolist():
        rows = batch.emotion == code
        means[code].add(faces[rows], {method: each[rows] for method, each in moved.items()})


def _draw(
    batch: FaceBatch, row: int, methods: Sequence[Method], explainer: Explainer, folder: Path
) -> None:
    """Draw all pictures of one face."""
    inside = (part for part in Path(batch.media[row]).parts if part not in ("/", ".."))
    folder = folder.joinpath(*inside)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{batch.frame_index[row]:06}-{batch.face_index[row]}"
    title = batch.media[row] if len(batch.media[row]) <= 48 else f"... {batch.media[row][-44:]}"
    if batch.track_id[row] >= 0:
        title += f", {batch.pts_s[row]:.2f} s"
    if not np.isnan(batch.pts_s[row]):
        title += f", face {batch.face_index[row]}"
    crop, code = batch.crops[[row]], batch.emotion[[row]]
    face = _pictures(batch, explainer.card)[row]
    [probs] = explainer.probs(crop)
    codes: Ints = np.flatnonzero(~np.isnan(probs))
    for method in methods:
        maps = explainer.maps(crop.expand(len(codes), -1, -1, -1), codes, method)
        path = folder / f"{name}-{method}.png"
        plots.face_maps(
            face, dict(zip(codes.tolist(), maps, strict=True)), probs, method, title, path
        )
    plots.occlusion_study(
        face,
        explainer.covered_scores(crop, code)[0],
        int(code[0]),
        float(probs[code[0]]),
        title,
        folder / f"{name}-covered.png",
    )
    layers = [each[0] for each in explainer.activations(crop)]
    plots.activations(face, layers, title, folder / f"{name}-activations.png")


def _pictures(batch: FaceBatch, card: ModelCard) -> Bytes:
    """The crops as grey pictures (M, S, S), as they were before `normalise`."""
    grey = 255 * (batch.crops[:, 0] * card.std[0] + card.mean[0])
    pictures: Bytes = grey.round().clamp(0, 255).to(torch.uint8).numpy()
    return pictures


def _markdown(summary: pd.DataFrame, card: ModelCard) -> str:
    titles = [name.removesuffix("_auc").removesuffix("_share") for name in summary.columns]
    titles[-1] = "random"
    rows = [
        [
            emotion,
            method,
            f"{n:,}",
            *("" if np.isnan(value) else f"{value:.3f}" for value in values),
        ]
        for emotion, method, n, *values in summary.itertuples(index=False)
    ]
    sides = ["left", "left", *["right"] * (len(titles) - 2)]
    table = tabulate(rows, titles, "pipe", colalign=sides, disable_numparse=True)
    return f"# Why {card.name} sees what it sees\n\n{table}\n\n{_NOTES}"
