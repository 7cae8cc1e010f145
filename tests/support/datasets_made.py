"""Tiny data sets, each in the layout that its publisher or Kaggle gives it.

Where a test only reads the layout, the pictures are empty files.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FERPLUS_COLUMNS = [
    *("Usage", "Image name", "neutral", "happiness", "surprise", "sadness", "anger", "disgust"),
    *("fear", "contempt", "unknown", "NF"),
]
VOTES = {  # file: votes in the order of FERPLUS_COLUMNS, from neutral
    "clear.png": [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],
    "mixed.png": [0, 6, 3, 0, 0, 0, 0, 0, 0, 1],
    "half.png": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],
    "unknown.png": [0, 0, 0, 0, 1, 1, 0, 0, 8, 0],
    "thing.png": [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    "all single.png": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    "neutral.png": [10, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    "surprise.png": [0, 0, 10, 0, 0, 0, 0, 0, 0, 0],
    "sadness.png": [0, 0, 0, 10, 0, 0, 0, 0, 0, 0],
    "anger.png": [0, 0, 0, 0, 10, 0, 0, 0, 0, 0],
    "disgust.png": [0, 0, 0, 0, 0, 10, 0, 0, 0, 0],
    "fear.png": [0, 0, 0, 0, 0, 0, 10, 0, 0, 0],
    "contempt.png": [1, 0, 0, 0, 1, 0, 0, 8, 0, 0],
}
FERPLUS_SPLITS = {
    "Training": "FER2013Train",
    "PublicTest": "FER2013Valid",
    "PrivateTest": "FER2013Test",
}
FER2013_FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""In the order of FER2013's codes."""
SIX = ("happiness", "surprise", "sadness", "anger", "disgust", "fear")


def photograph(seed: int, side: int = 48) -> np.ndarray:
    """A grey picture with features of a face's scale, another for each seed: (S, S) uint8."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), side / 24)
    return np.clip(128 + 50 * field / field.std(), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | int = 0) -> None:
    """Write a picture, which may be given by its seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph(pixels) if isinstance(pixels, int) else pixels).save(path)


def touch(path: Path) -> None:
    """Make an empty file in the place of a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    return path


def make_ferplus(root: Path) -> Path:
    """Every kind of vote in each split; another photograph for each file."""
    rows: list[Sequence[object]] = [FERPLUS_COLUMNS]
    for usage, folder in FERPLUS_SPLITS.items():
        for name, votes in VOTES.items():
            rows.append([usage, name, *votes])
            save(root / folder / name, len(rows))
        rows.append([usage, "", *VOTES["thing.png"]])
    write_csv(root / "fer2013new.csv", rows)
    return root


def make_fer2013(root: Path) -> Path:
    """One picture of each class in each split."""
    for number, folder in enumerate(FER2013_FOLDERS):
        save(root / "train" / folder / f"Training_{number}.png", 10 * number)
        save(root / "test" / folder / f"PublicTest_{number}.png", 10 * number + 1)
        save(root / "test" / folder / f"PrivateTest_{number}.png", 10 * number + 2)
    return root


def make_fer2013_csv(path: Path, columns: Sequence[str] = ("emotion", "pixels", "Usage")) -> Path:
    """One row of each class in each split; the picture of row N is photograph(N)."""
    rows: list[Sequence[object]] = [columns]
    for usage in FERPLUS_SPLITS:
        for code in range(7):
            pixels = " ".join(map(str, photograph(len(rows) - 1).ravel()))
            values = {"emotion": code, "pixels": pixels, "Usage": usage}
            rows.append([values[column.strip()] for column in columns])
    return write_csv(path, rows)


def make_rafdb(root: Path, n_train: int = 40) -> Path:
    """`n_train` training pictures and one test picture of each class."""
    lines = []
    for code in range(1, 8):
        for split, n in (("train", n_train), ("test", 1)):
            for number in range(n):
                name = f"{split}_{code}{number:04}"
                touch(root / "Image" / "aligned" / f"{name}_aligned.jpg")
                lines.append(f"{name}.jpg {code}\n")
    (root / "EmoLabel").mkdir()
    (root / "EmoLabel" / "list_patition_label.txt").write_text("".join(lines))
    return root


def make_flat(folder: Path, table: Path, n: int = 30, suffix: str = ".jpg") -> Path:
    """`n` pictures of each of the six emotions in one folder, and their table."""
    rows: list[Sequence[object]] = [("name", "label")]
    for code, emotion in enumerate(SIX):
        for number in range(n):
            touch(folder / f"{number:03}_{emotion}.jpg")
            rows.append((f"{number:03}_{emotion}{suffix}", code))
    write_csv(table, rows)
    return folder


def make_ckplus(root: Path, n_subjects: int = 30) -> Path:
    """A labelled sequence of four frames, and one without a label, for each subject."""
    for number in range(n_subjects):
        subject = f"S{number:03}"
        for sequence in ("001", "002"):
            name = f"{subject}/{sequence}/{subject}_{sequence}"
            for frame in range(1, 5):
                touch(root / "cohn-kanade-images" / f"{name}_{frame:08}.png")
            (root / "Emotion" / subject / sequence).mkdir(parents=True)
        label = root / "Emotion" / subject / "001" / f"{subject}_001_00000004_emotion.txt"
        label.write_text(f"   {number % 7 + 1:.7e}\n")
    return root


def make_folders(root: Path, names: Sequence[str], n: int = 1) -> Path:
    """`n` pictures in each of the folders named."""
    for name in names:
        for number in range(n):
            touch(root / name / f"{number:04}.png")
    return root


def make_disfa(root: Path, subject: str = "SN001", n: int = 4) -> Path:
    """Intensities that tell unit and frame apart: (unit + frame) modulo 6."""
    folder = root / "ActionUnit_Labels" / subject
    folder.mkdir(parents=True)
    for unit in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26):
        lines = (f"{frame},{(unit + frame) % 6}\n" for frame in range(1, n + 1))
        (folder / f"{subject}_au{unit}.txt").write_text("".join(lines))
    return root
