"""Which explanations are worth their time: milliseconds per face, and what they show of FER+.

    benchmarks/explain.py FERPLUS [--faces 500]

FERPLUS is the data set's folder. Time is that of the CPU, with one thread, so that other work on
the machine matters little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import machine, write_page

from fer_batch.card import find_weights
from fer_batch.crop import normalise
from fer_batch.explain import METHODS, Explainer
from fer_batch.faithfulness import STEPS, correlation, deletion, insertion, shares
from fer_batch.pictures import load_data
from fer_batch.regions import FER_POINTS, REGIONS, masks
from fer_batch.schema import EMOTIONS, Floats, Ints

N_TIMED, N_ALONE, ROUNDS, SEEDS = 64, 16, 3, 3
SURE = 0.3
"""Rank correlation with random networks above which a method is said to fail."""


def cpu_ms(work: Callable[[], object], n: int) -> float:
    """Median CPU milliseconds of each of `n`."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * float(np.median(times)) / n


def speeds(explainer: Explainer, crops: torch.Tensor, emotion: Ints) -> pd.DataFrame:
    """Milliseconds per face by method."""
    rows = {}
    for method in METHODS:
        explainer.maps(crops[:2], emotion[:2], method)
        rows[method] = {
            "in batches": cpu_ms(
                lambda method=method: explainer.maps(crops[:N_TIMED], emotion[:N_TIMED], method),
                N_TIMED,
            ),
            "one by one": cpu_ms(
                lambda method=method: [
                    explainer.maps(crops[[row]], emotion[[row]], method) for row in range(N_ALONE)
                ],
                N_ALONE,
            ),
        }
    return pd.DataFrame(rows).T


def worth(explainer: Explainer, crops: torch.Tensor, emotion: Ints) -> tuple[pd.DataFrame, Floats]:
    """Means by method, and each method's maps' shares of the regions by emotion."""
    side = crops.shape[-1]
    inside = masks(np.tile(side * np.array(FER_POINTS, np.float32), (len(crops), 1, 1)), side)
    random = [explainer.randomised(seed) for seed in range(SEEDS)]
    generator = np.random.default_rng(0)
    middle = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)).astype(np.float32)
    controls = {
        "a flat map": np.ones((len(crops), side, side), np.float32),
        "noise": generator.random((len(crops), side, side), np.float32),
        "the middle first": np.tile(middle.max() - middle, (len(crops), 1, 1)),
    }
    rows, by_emotion = {}, []
    for name in (*METHODS, *controls):
        is_method = name in METHODS
        maps = explainer.maps(crops, emotion, name) if is_method else controls[name]
        share = shares(maps, inside)
        found = {
            "deletion": deletion(explainer, crops, emotion, maps),
            "insertion": insertion(explainer, crops, emotion, maps),
            **dict(zip(REGIONS, share.T, strict=True)),
        }
        rows[name] = {column: float(np.nanmean(values)) for column, values in found.items()}
        if is_method:
            each = [correlation(maps, other.maps(crops, emotion, name)) for other in random]
            rows[name]["random"] = float(np.nanmean(each))
            rows[name]["empty"] = float(np.isnan(each).mean())
            by_emotion.append(
                [np.nanmean(share[emotion == code], axis=0) for code in np.unique(emotion)]
            )
    return pd.DataFrame(rows).T, np.array(by_emotion)


def page(root: Path, n_faces: int) -> Iterator[str]:
    """The lines of the page."""
    torch.set_num_threads(1)
    explainer = Explainer(find_weights("default"), torch.device("cpu"))
    size_px = explainer.card.input_size_px
    data = load_data("ferplus", root, size_px=size_px, splits=("valid",)).pictures["valid"]
    rows = np.sort(np.random.default_rng(0).permutation(len(data))[:n_faces])
    crops = normalise(data.pixels[rows], explainer.card)
    emotion = np.nanargmax(explainer.probs(crops), axis=1)

    yield f"# Explanations of `{explainer.card.name}`\n"
    yield from machine()
    yield f"\n{len(rows)} pictures of FER+'s validation split, for the emotion that is predicted."
    yield "\n## Time\n"
    yield "CPU milliseconds per face with one thread, median of "
    yield f"{ROUNDS} rounds; batches of {N_TIMED}.\n"
    yield speeds(explainer, crops, emotion).to_markdown(floatfmt=".1f")
    table, by_emotion = worth(explainer, crops, emotion)
    yield "\n## Worth\n"
    yield "deletion: mean score while pixels become grey, most important first (low is good).\n"
    yield "insertion: while those of a blurred face become sharp (high is good); both in "
    yield f"{STEPS} steps. Shares of the positive part of the map by region. random: Spearman's "
    yield f"correlation with maps of {SEEDS} networks with random weights (about 0 is good), over "
    yield "those that are not empty; empty: share of pairs with an empty map.\n"
    yield table.to_markdown(floatfmt=".3f")
    yield "\n"
    yield from verdicts(table)
    yield "\n## Where each emotion is seen\n"
    yield "Share of the mouth, and of eyes and brows together.\n"
    names = [EMOTIONS[code] for code in np.unique(emotion)]
    counts = np.bincount(emotion, minlength=len(EMOTIONS))
    shown = [
        [f"{part[0]:.2f} / {part[1] + part[2]:.2f}" for part in method] for method in by_emotion
    ]
    titles = [f"{name} ({counts[EMOTIONS.index(name)]})" for name in names]
    yield pd.DataFrame(shown, METHODS, titles).to_markdown()


def verdicts(table: pd.DataFrame) -> Iterator[str]:
    """Sentences about what the numbers say."""
    noise = table.loc["noise"]
    for method in METHODS:
        row = table.loc[method]
        said = [
            "better" if row["insertion"] > noise["insertion"] else "NOT better",
            "better" if row["deletion"] < noise["deletion"] else "NOT better",
            "passes" if abs(row["random"]) < SURE else "FAILS",
        ]
        yield f"- {method}: insertion {said[0]} and deletion {said[1]} than noise; {said[2]} the"
        yield f"  sanity check (correlation {row['random']:.2f}, limit {SURE})."


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--faces", type=int, default=500)
    parsed = parser.parse_args()
    write_page("explain", page(parsed.data, parsed.faces))


if __name__ == "__main__":
    main()
