"""Training of a detector: crops, assignment, and a short training that is stopped and continued."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fer_batch.config import Detector, Glance
from fer_batch.datasets import DatasetError, Split
from fer_batch.datasets.face_boxes import FacePicture, read_face_boxes
from fer_batch.errors import ConfigError
from fer_batch.faces.detectors import build_detector
from fer_batch.faces.detectors.glance_network import GlanceNetwork, cells
from fer_batch.settings import CONFIGS
from fer_batch.training.detector.loss import batch_faces, measure
from fer_batch.training.detector.recipe import Colour, DetectorRecipe, Geometry, load_recipe
from fer_batch.training.detector.samples import CropDataset
from fer_batch.training.detector.train import Validation, fit, validate
from tests.support.command import run
from tests.support.faces_made import COLOURS, make_faces

CPU = torch.device("cpu")
Splits = dict[Split, list[FacePicture]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def splits(folder: Path) -> Splits:
    return read_face_boxes(folder)


def recipe(**settings: object) -> DetectorRecipe:
    values: dict[str, object] = {
        "name": "tiny",
        "phases": [
            {"steps": 4, "crop_px": 96, "batch_size": 4},
            {"steps": 2, "crop_px": 128, "batch_size": 2},
        ],
        "warm_up_steps": 2,
        "ema_decay": 0.5,
        "validate_every": 3,
        "trained_on": "drawings",
    }
    return DetectorRecipe.model_validate(values | settings)


@pytest.mark.parametrize("n", [1, 2])
def test_labels_move_with_the_picture(splits: Splits, n: int) -> None:
    plain = {name: 0.0 for name in Colour.model_fields}
    geometry = Geometry(kinds={"portrait": 1}, grids={n: 1}, face_px=(40, 60), tilted=0.7)
    phase = {"steps": 9, "crop_px": 160 * n, "batch_size": 9}
    crops = CropDataset(splits["train"], recipe(geometry=geometry, colour=plain, phases=[phase]), 0)
    n_faces = 0
    for crop in map(crops.__getitem__, range(40 // n)):
        assert crop.rgb.shape == (160 * n, 160 * n, 3)
        for points, box in zip(
            crop.points_px[crop.is_sure], crop.box_px[crop.is_sure], strict=True
        ):
            if box[2] - box[0] < 30 or (box[:2] // 160 != box[2:] // 160).any():
                continue  # too small to see the points, or cut by the edge of its part
            assert ((points > box[:2]) & (points < box[2:])).all()
            shown = crop.rgb[tuple(points.round().astype(int).T[::-1])]
            mirrored = [COLOURS[row] for row in (1, 0, 2, 4, 3)]
            errors = [
                np.abs(shown - np.array(wanted, float)).max() for wanted in (COLOURS, mirrored)
            ]
            assert min(errors) < 120
            n_faces += 1
    assert n_faces > 20


def test_crops_are_the_same_for_a_number(splits: Splits) -> None:
    first, second = (CropDataset(splits["train"], recipe(), 0) for _ in range(2))
    for number in (5, 3, 5):
        np.testing.assert_array_equal(first[number].rgb, second[number].rgb)
        np.testing.assert_array_equal(first[number].box_px, second[number].box_px)
    assert (first[0].rgb != first[1].rgb).any()
    other = CropDataset(splits["train"], recipe(seed=1), 0)
    assert (first[0].rgb != other[0].rgb).any()


def test_every_face_is_learnt_by_some_cells(splits: Splits) -> None:
    crops = [CropDataset(splits["train"], recipe(), 0)[number] for number in range(8)]
    torch.manual_seed(0)
    network = GlanceNetwork()
    pixels = torch.from_numpy(np.stack([crop.rgb for crop in crops])).permute(0, 3, 1, 2) / 255
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    totals = []
    for _ in range(25):
        losses = measure(network(pixels), cells(96, 96, CPU), *batch_faces(crops, CPU))
        total = losses.score + losses.box + losses.points
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.6 * totals[0]


def test_crops_without_a_face_teach_that_there_is_none(splits: Splits) -> None:
    made = recipe(geometry={"kinds": {"background": 1}})
    crops = [CropDataset(splits["train"], made, 0)[number] for number in range(2)]
    outputs = torch.zeros(2, len(cells(96, 96, CPU)), 15, requires_grad=True)
    losses = measure(outputs, cells(96, 96, CPU), *batch_faces(crops, CPU))
    losses.score.backward()
    assert (losses.box.item(), losses.points.item()) == (0, 0)
    assert (outputs.grad[..., 0] > 0).all()


def test_stopped_training_goes_on_to_the_same_weights(splits: Splits, tmp_path: Path) -> None:
    steps: list[tuple[int, bool]] = []
    whole = fit(
        recipe(),
        splits,
        tmp_path / "whole",
        device=CPU,
        workers=0,
        on_step=lambda step, validation: steps.append((step, validation is not None)),
    )
    assert [step for step, is_validation in steps if is_validation] == [3, 6]
    table = pd.read_csv(tmp_path / "whole" / "metrics.csv")
    assert table["step"].tolist() == [3, 6]
    assert np.isfinite(table.to_numpy()).all()

    def stop(step: int, validation: Validation | None) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe(), splits, tmp_path / "out", device=CPU, workers=0, on_step=stop)
    path = fit(recipe(), splits, tmp_path / "out", device=CPU, workers=0)
    expected, found = load_file(whole), load_file(path)
    assert all((expected[name] == found[name]).all() for name in expected)
    with pytest.raises(ConfigError, match="another recipe"):
        fit(recipe(seed=1), splits, tmp_path / "out", device=CPU, workers=0)

    section = Glance(weights=str(path), min_score=0.01, weak_score=0.01)
    detector = build_detector(Detector(name="glance", glance=section), CPU)
    assert detector.detect([np.zeros((50, 60, 3), np.uint8)]).points_px is not None


def test_kind_without_pictures_is_named(splits: Splits) -> None:
    scenes = [picture for picture in splits["train"] if picture.kind == "scene"]
    with pytest.raises(DatasetError, match=r"no portrait among .* geometry\.kinds"):
        CropDataset(scenes, recipe(), 0)
    assert len(CropDataset(scenes, recipe(geometry={"kinds": {"scene": 1}}), 0)) == 16


def test_picture_of_another_size_is_named(splits: Splits) -> None:
    picture = replace(splits["valid"][0], size_px=(160, 121))
    with pytest.raises(DatasetError, match=f"{picture.name}: has not the size"):
        validate(GlanceNetwork(), [picture], CPU)


def test_picture_that_cannot_be_decoded_is_named(splits: Splits, tmp_path: Path) -> None:
    broken = [replace(picture, jpeg=b"no picture") for picture in splits["train"]]
    with pytest.raises(DatasetError, match=r"\w+_\d+\.jpg: is not a picture, or is damaged"):
        fit(recipe(), splits | {"train": broken}, tmp_path, device=CPU, workers=0)


def test_shipped_recipe_is_valid_and_runs_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_recipe(Path("glance")).n_steps == 5600
    assert (CONFIGS / "train-detector" / "glance.yaml").is_file()
    command = ["train-detector", "--config", "glance", "--data", str(folder), "-o", str(tmp_path)]
    short = "--set=phases=[{steps: 2, crop_px: 64, batch_size: 2}]"
    assert run(*command, "--workers", "0", "--device", "cpu", short) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("step 2/2: score loss ")
    assert said[-1] == str(tmp_path / "glance.safetensors")
    assert run(*command, "--set=phases=[]") == 2
