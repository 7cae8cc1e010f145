"""The same classifier on faces that are cut out by their boxes, and by five points.

python -m benchmarks.crops --data FERPLUS

Clips and the weights of the detectors come from ../shared; FERPLUS is the folder of FER+, or the
file that it was packed into. The default classifier was trained on faces that were cut by boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.detectors import ENLARGED, build, read_chunks
from benchmarks.measuring import DETECTORS, machine, parse_data, write_page
from fer_batch.config import Config, load
from fer_batch.datasets.pictures import Pictures, load_data
from fer_batch.faces.crop import crop
from fer_batch.faces.detectors import Detector
from fer_batch.faces.tracking import Tracker
from fer_batch.models.card import ModelCard, find_weights
from fer_batch.models.classifier import Classifier
from fer_batch.records import Bytes, Floats, Frames

CLIPS = ("pyfeat_single_face.mp4", "liveportrait_d13.mp4", "liveportrait_s20.mp4")
WAYS = (("box", 0.0), ("points", 0.0), ("points", 0.1), ("points", 0.2), ("points", 0.3))
N_PICTURES = 500
TURN_DEG = 20


def framed(pictures: Bytes) -> list[Bytes]:
    """Pictures (N, S, S) enlarged, in a frame of their repeated edge."""
    edge = pictures.shape[1]
    frames = []
    for picture in pictures:
        large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
        whole = cv2.copyMakeBorder(large, *[edge] * 4, cv2.BORDER_REPLICATE)
        frames.append(np.repeat(whole[..., None], 3, axis=2))
    return frames


def turned(frame: Bytes) -> Bytes:
    """The frame turned around its centre."""
    height, width = frame.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), TURN_DEG, 1)
    return cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


def accuracy(
    detector: Detector, classifier: Classifier, cards: list[ModelCard], pictures: Pictures
) -> tuple[int, list[float], list[float]]:
    """Number of pictures in which one face is found, upright and turned, and accuracy on both."""
    upright = framed(pictures.pixels)
    views = [upright, [turned(frame) for frame in upright]]
    found = [detector.detect(frames) for frames in views]
    counts = [np.bincount(faces.frame_row, minlength=len(upright)) for faces in found]
    is_alone = (counts[0] == 1) & (counts[1] == 1)
    true = pictures.targets.argmax(axis=1)
    shares = []
    for frames, faces in zip(views, found, strict=True):
        chosen = faces.take(is_alone[faces.frame_row])
        right = [
            classifier(crop(frames, chosen, card)).argmax(axis=1) == true[chosen.frame_row]
            for card in cards
        ]
        shares.append([float(each.mean()) for each in right])
    return int(is_alone.sum()), shares[0], shares[1]


def unrest(
    detector: Detector, classifier: Classifier, cards: list[ModelCard], clip: str
) -> list[float]:
    """Change of a track's probabilities from frame to frame: half the sum over emotions."""
    config = Config()
    tracker = Tracker(config.track)
    probs: list[list[Floats]] = [[] for _ in cards]
    tracks = []
    for chunk in read_chunks(clip):
        frames: Frames = chunk.rgb
        faces = detector.detect(frames)
        no_cut = np.zeros(len(frames), np.bool_)
        tracks.append(tracker.update(faces, chunk.pts_s, no_cut))
        for each, card in zip(probs, cards, strict=True):
            each.append(classifier(crop(frames, faces, card)))
    order = np.argsort(np.concatenate(tracks), kind="stable")
    same = np.diff(np.concatenate(tracks)[order]) == 0
    steps = [np.abs(np.diff(np.concatenate(each)[order], axis=0)).sum(axis=1) / 2 for each in probs]
    return [float(each[same].mean()) for each in steps]


def page(ferplus: Path) -> Iterator[str]:
    """The lines of the document."""
    yield "# Crops by box and by points"
    yield ""
    yield from machine()
    yield f"`{find_weights('default').stem}`, trained on crops by box. Accuracy: on the first"
    yield f"{N_PICTURES} validation pictures of FER+, enlarged {ENLARGED} times and set into a"
    yield "frame of their repeated edge, as far as one face is found in them upright and turned by"
    yield f"{TURN_DEG} degrees. Unrest: how much the probabilities of a track change from one frame"
    yield "to the next (total variation, 0 to 1): less is steadier."
    device = torch.device("cpu")
    classifier = Classifier(find_weights("default"), device, batch_size=64, flip=False)
    ways = [{"crop": kind, "crop_margin": margin} for kind, margin in WAYS]
    cards = [classifier.card.model_copy(update=way) for way in ways]
    data = load_data("ferplus", ferplus, size_px=48, splits=("valid",)).pictures["valid"]
    pictures = data.where(np.arange(len(data)) < N_PICTURES)
    for name in ("yunet", "retinaface mobilenet0.25"):
        detector = build(load(None, DETECTORS[name]))
        n, upright, tilted = accuracy(detector, classifier, cards, pictures)
        steps = [unrest(detector, classifier, cards, clip) for clip in CLIPS]
        yield from ("", f"## {name}, {n} pictures", "")
        yield f"| crop | margin | accuracy | turned | unrest: {' | '.join(CLIPS)} |"
        yield "|:--|--:|--:|--:|" + "--:|" * len(CLIPS)
        for way, *numbers in zip(WAYS, upright, tilted, *steps, strict=True):
            cells = [f"{each:.1%}" for each in numbers[:2]] + [f"{x:.3f}" for x in numbers[2:]]
            yield f"| {way[0]} | {way[1]:g} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and write."""
    data = parse_data(__doc__)
    torch.set_num_threads(1)
    write_page("crops", page(data))


if __name__ == "__main__":
    main()
