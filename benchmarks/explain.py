"""Time and quality of the explanation methods: milliseconds per face, and results on FER+.

    python -m benchmarks.explain FERPLUS [--faces 500]

FERPLUS is the data set's folder. Time is that of the CPU, with one thread, so that other work on
the machine matters little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.measuring import machine, write_page
from fer_batch.datasets.pictures import load_data
from fer_batch.emotions import EMOTIONS
from fer_batch.explain.explainer import METHODS, Explainer
from fer_batch.explain.faithfulness import STEPS, correlation, deletion, insertion, shares
from fer_batch.explain.regions import FER_POINTS, REGIONS, masks
from fer_batch.faces.crop import normalise
from fer_batch.models.card import find_weights
from fer_batch.records import Floats, Ints

N_TIMED, N_ALONE, ROUNDS = 64, 16, 3
N_SANITY, SEEDS = 100, 5
LIMIT = 0.3
NOISE, MIDDLE = "noise", "the middle first"


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


def controls(n_faces: int, side: int) -> dict[str, Floats]:
    """Maps that do not depend on the network, as controls."""
    middle = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)).astype(np.float32)
    return {
        NOISE: np.random.default_rng(0).random((n_faces, side, side), np.float32),
        MIDDLE: np.tile(middle.max() - middle, (n_faces, 1, 1)),
    }


def worth(explainer: Explainer, crops: torch.Tensor, emotion: Ints) -> dict[str, pd.DataFrame]:
    """Quality of the maps of each method and of the controls: a row per face."""
    side = crops.shape[-1]
    inside = masks(np.tile(side * np.array(FER_POINTS, np.float32), (len(crops), 1, 1)), side)
    known = controls(len(crops), side)
    tables = {}
    for name in (*METHODS, *known):
        maps = known[name] if name in known else explainer.maps(crops, emotion, name)
        tables[name] = pd.DataFrame(
            {
                "deletion": deletion(explainer, crops, emotion, maps),
                "insertion": insertion(explainer, crops, emotion, maps),
                **dict(zip(REGIONS, shares(maps, inside).T, strict=True)),
            }
        )
    return tables


def sanity(explainer: Explainer, crops: torch.Tensor, emotion: Ints) -> pd.DataFrame:
    """Correlation of maps with those of networks with random weights, by method."""
    random = [explainer.randomised(seed) for seed in range(SEEDS)]
    rows = {}
    for method in METHODS:
        maps = explainer.maps(crops, emotion, method)
        found = np.array(
            [correlation(maps, other.maps(crops, emotion, method)) for other in random]
        )
        means = np.nanmean(found, axis=1)
        rows[method] = {
            "mean": np.nanmean(found),
            "lowest": means.min(),
            "highest": means.max(),
            "of size": np.nanmean(abs(found)),
            "empty": np.isnan(found).mean(),
        }
    return pd.DataFrame(rows).T


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
    yield f"CPU milliseconds per face with one thread, median of {ROUNDS} rounds; batches of"
    yield f"{N_TIMED}.\n"
    yield speeds(explainer, crops, emotion).to_markdown(floatfmt=".1f")
    tables = worth(explainer, crops, emotion)
    yield "\n## Worth\n"
    yield "deletion: mean score while pixels become grey, most important first (low is good)."
    yield "insertion: while those of a blurred face become sharp (high is good); both in"
    yield f"{STEPS} steps. The rest: share of the positive part of the map by region. Two controls"
    yield "know nothing of the network; as faces are centred, the middle is a strong one.\n"
    means = {name: table.mean() for name, table in tables.items()}
    yield pd.DataFrame(means).T.to_markdown(floatfmt=".3f")
    yield "\nPaired differences to the stronger control, with their 95 % intervals:\n"
    yield from differences(tables)
    yield "\n## Sanity check\n"
    yield "Spearman's correlation with the maps of networks with random weights (Adebayo et al.,"
    yield f"2018), {N_SANITY} pictures and {SEEDS} networks: mean over all, lowest and highest mean"
    yield "of a network, mean size; without the pairs of which one map is empty, whose share"
    yield f"follows. A method passes where the size of no network's mean is above {LIMIT}.\n"
    check = sanity(explainer, crops[:N_SANITY], emotion[:N_SANITY])
    passes = check[["lowest", "highest"]].abs().max(axis=1) <= LIMIT
    yield check.assign(passes=np.where(passes, "yes", "NO")).to_markdown(floatfmt=".3f")
    yield "\n## Where each emotion is seen\n"
    yield "Share of the mouth, and of eyes and brows together; number of pictures in brackets.\n"
    yield by_emotion(tables, emotion).to_markdown()


def differences(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """Comparison of each method with the stronger control."""
    for method in METHODS:
        parts = []
        for column, sign in (("insertion", 1), ("deletion", -1)):
            best = max((NOISE, MIDDLE), key=lambda name: sign * tables[name][column].mean())
            gain = sign * (tables[method][column] - tables[best][column])
            mean, half = gain.mean(), 1.96 * gain.std() / len(gain) ** 0.5
            said = "better" if mean > half else "WORSE" if mean < -half else "NOT better"
            parts.append(f"{column} {said} than {best} ({mean:+.3f} \u00b1 {half:.3f})")
        yield f"- {method}: {'; '.join(parts)}."


def by_emotion(tables: Mapping[str, pd.DataFrame], emotion: Ints) -> pd.DataFrame:
    """Shares of mouth and of eyes and brows, by method and emotion."""
    rows = {}
    for name, table in tables.items():
        parts = table.groupby(np.array(EMOTIONS)[emotion])
        rows[name] = {
            f"{seen} ({len(part)})": f"{part['mouth'].mean():.2f} / "
            f"{(part['eyes'] + part['brows']).mean():.2f}"
            for seen, part in parts
        }
    return pd.DataFrame(rows).T


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--faces", type=int, default=500)
    parsed = parser.parse_args()
    write_page("explain", page(parsed.data, parsed.faces))


if __name__ == "__main__":
    main()
