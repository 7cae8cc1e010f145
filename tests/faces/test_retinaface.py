"""RetinaFace against the package's own way of reading one picture, and on real faces."""

import csv
import os
import pickle
import warnings
import zipfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from retinaface.box_utils import decode, decode_landm
from retinaface.network import RetinaFace as PackageNetwork
from retinaface.prior_box import priorbox
from skimage import data
from torchvision.models.resnet import Bottleneck
from torchvision.ops import nms

from fer_batch.config import Detector, RetinaFace
from fer_batch.errors import DetectorError, WeightsError
from fer_batch.faces.detectors import build_detector
from fer_batch.records import Faces
from tests.support.cards import room_for

SIDE = 192
ASTRONAUT, COFFEE = data.astronaut(), data.coffee()
PICTURES = [
    ASTRONAUT[:288, :384],
    COFFEE[:288, :384],
    data.chelsea(),  # 300 x 451: its sides do not shrink by the same factor
    ASTRONAUT[:120, 160:240],
    COFFEE[100:388, 100:484],
    np.ascontiguousarray(ASTRONAUT[:, :171]),
]


def detector(weights: Path | str | None, **settings: object):
    only_strong = {"weak_score": settings.get("min_score", 0.7)}
    config = RetinaFace(weights=weights and str(weights), **only_strong | settings)
    return build_detector(
        Detector(name="retinaface", retinaface=config), device=torch.device("cpu")
    )


def package_network() -> torch.nn.Module:
    warnings.filterwarnings("ignore", module="torchvision.models._utils")  # of `pretrained`
    return PackageNetwork(
        name="Resnet50",
        pretrained=False,
        in_channels=256,
        return_layers={"layer2": 1, "layer3": 2, "layer4": 3},
        out_channels=256,
    ).eval()


def prepared(frame: np.ndarray, side: int = SIDE) -> torch.Tensor:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    steps = albumentations.Compose(
        [albumentations.LongestMaxSize(side), albumentations.Normalize()]
    )
    return torch.from_numpy(steps(image=frame)["image"].transpose(2, 0, 1))[None]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; small residues keep them from amplifying what is rounded."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.manual_seed(0)
    network = package_network().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of the one picture that follows
        if isinstance(module, Bottleneck):
            torch.nn.init.constant_(module.bn3.weight, 0.1)
    with torch.no_grad():
        network(prepared(ASTRONAUT))
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def package(weights: Path) -> torch.nn.Module:
    network = package_network()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network


@torch.no_grad()
def predict(
    network: torch.nn.Module, frame: np.ndarray, min_score: float, nms_iou: float = 0.4
) -> np.ndarray:
    """`predict_jsons` of 0.0.8 with what 0.0.1 has of it: (M, 15) box, score, points.

    Two slips of it are mended: it stretches both axes by the factor of the height, and does not
    return the boxes that it has clipped.
    """
    pixels = prepared(frame)
    boxes, logits, points = network(pixels)
    height, width = pixels.shape[2:]
    priors = priorbox([[16, 32], [64, 128], [256, 512]], [8, 16, 32], False, (height, width))
    boxes = decode(boxes[0], priors, [0.1, 0.2])
    points = decode_landm(points[0], priors, [0.1, 0.2])
    score = torch.softmax(logits, dim=-1)[0, :, 1]
    sure = score > min_score
    boxes, score, points = boxes[sure], score[sure], points[sure]
    kept = nms(boxes * torch.tensor([width, height] * 2), score, nms_iou)
    whole = np.array(frame.shape[1::-1])
    corners = np.clip(boxes[kept].numpy().reshape(-1, 2, 2) * whole, 0, whole - 1)
    points_px = points[kept].numpy().reshape(-1, 5, 2) * whole
    table = np.hstack([corners.reshape(-1, 4), score[kept, None], points_px.reshape(-1, 10)])
    table = table[(corners[:, 0] < corners[:, 1]).all(axis=1)]
    return table[np.lexsort((table[:, 1], table[:, 0]))]


def apart(weights: Path, frames: list[np.ndarray], side: int) -> float:
    """A least score that some fiftieth of all anchors pass, and that is far from any score."""
    everything = detector(weights, longest_side_px=side, min_score=1e-6, nms_iou=1.0)
    score = np.sort(everything.detect(frames).score)
    some = score[int(0.975 * len(score)) : int(0.985 * len(score))]
    widest = int(np.diff(some).argmax())
    return float(some[widest : widest + 2].mean())


def table(faces: Faces, row: int) -> np.ndarray:
    of_frame = faces.frame_row == row
    assert faces.points_px is not None
    columns = faces.box_px, faces.score[:, None], faces.points_px.reshape(-1, 10)
    return np.hstack(columns)[of_frame]


def test_equals_the_package_one_by_one_and_in_batches_of_mixed_sizes(
    weights: Path, package: torch.nn.Module
) -> None:
    min_score = apart(weights, PICTURES, SIDE)
    ours = detector(weights, longest_side_px=SIDE, min_score=min_score)
    together = ours.detect(PICTURES)
    n_faces = np.bincount(together.frame_row, minlength=len(PICTURES))
    assert n_faces.sum() > 50
    for row, frame in enumerate(PICTURES):
        expected = predict(package, frame, min_score)
        assert len(expected) == n_faces[row]
        for found in (table(ours.detect([frame]), 0), table(together, row)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_equals_the_package_with_a_thousand_candidates(
    weights: Path, package: torch.nn.Module
) -> None:
    ours = detector(weights, longest_side_px=SIDE, min_score=0.01, nms_iou=0.9)
    found = table(ours.detect(PICTURES[:1]), 0)
    expected = predict(package, PICTURES[0], 0.01, 0.9)
    assert len(found) > 1000
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_batches_of_1_and_32_are_equal(weights: Path) -> None:
    frames = [np.roll(ASTRONAUT, 16 * shift, axis=1) for shift in range(32)]
    ours = detector(weights, longest_side_px=64, min_score=apart(weights, frames, 64))
    together = ours.detect(np.stack(frames))
    assert len(together) > 50
    for row, frame in enumerate(frames):
        alone = table(ours.detect([frame]), 0)
        np.testing.assert_allclose(table(together, row), alone, rtol=0, atol=1e-3)


def test_points_and_boxes_are_in_pixels_of_the_full_frame(weights: Path) -> None:
    ours = detector(weights, longest_side_px=SIDE, min_score=0.6)
    small = cv2.resize(PICTURES[0], (SIDE, 144))
    doubled = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)  # shrinks to the same pixels
    first, second = (ours.detect([frame]) for frame in (small, doubled))
    inside = (first.box_px[:, 2:] < [SIDE - 2, 142]).all(axis=1)
    assert inside.any()
    np.testing.assert_allclose(second.box_px[inside], 2 * first.box_px[inside], atol=1e-3)
    np.testing.assert_allclose(second.points_px, 2 * first.points_px, atol=2e-3)


def test_faces_go_by_frame_then_from_left_to_right_and_lie_in_the_frame(weights: Path) -> None:
    faces = detector(weights, longest_side_px=64, min_score=0.5).detect(PICTURES)
    assert (np.diff(faces.frame_row) >= 0).all()
    same = np.diff(faces.frame_row) == 0
    assert (np.diff(faces.box_px[:, 0])[same] >= 0).all()
    size = np.array([frame.shape[1::-1] for frame in PICTURES])[faces.frame_row]
    assert (faces.box_px >= 0).all()
    assert (faces.box_px[:, 2:] <= size - 1).all()
    assert (faces.box_px[:, :2] < faces.box_px[:, 2:]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3000), (3000, 2), (10_000, 10_000)])
def test_any_size_of_picture(weights: Path, shape: tuple[int, int]) -> None:
    faces = detector(weights, longest_side_px=64, min_score=0.01).detect(
        [np.zeros((*shape, 3), np.uint8), ASTRONAUT]
    )
    assert (faces.box_px[faces.frame_row == 0, 2:] <= np.array(shape[::-1]) - 1).all()
    assert (faces.frame_row == 1).any()


def test_no_frames_no_faces(weights: Path) -> None:
    faces = detector(weights).detect([])
    assert len(faces) == 0
    assert faces.points_px is not None
    assert faces.points_px.shape == (0, 5, 2)


def test_short_memory_makes_smaller_batches_with_the_same_faces(weights: Path) -> None:
    frames = [*PICTURES, *PICTURES]
    ours = detector(weights, longest_side_px=64, min_score=apart(weights, frames, 64))
    expected = ours.detect(frames)
    assert len(expected)
    for n_frames in (2, 1):
        with room_for(n_frames):
            found = ours.detect(frames)
        np.testing.assert_array_equal(found.frame_row, expected.frame_row)
        np.testing.assert_allclose(found.box_px, expected.box_px, rtol=0, atol=1e-3)


def test_a_frame_that_does_not_fit_is_an_error(weights: Path) -> None:
    ours = detector(weights, longest_side_px=64)
    with room_for(0), pytest.raises(DetectorError, match="longest_side_px"):
        ours.detect(PICTURES)


def test_weights_in_a_zip_with_prefixes_and_doubles(weights: Path, tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in torch.load(weights).items()}
    state["module.body.conv1.weight"] = state["module.body.conv1.weight"].double()
    torch.save(state, tmp_path / "inner.pth")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.pth", "folder/inner.pth")
    plain, packed = (
        detector(path, longest_side_px=64, min_score=0.6).detect([ASTRONAUT])
        for path in (weights, tmp_path / "outer.zip")
    )
    assert len(plain)
    np.testing.assert_array_equal(packed.box_px, plain.box_px)


def write(path: Path, content: object) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "damaged"),
        (b"not weights at all", "damaged"),
        (b"PK\x03\x04" + bytes(50), "damaged"),
        (pickle.dumps([1, 2], protocol=2), "damaged"),
        ([torch.ones(2)], "expected tensors by name"),
        ({"epoch": 3}, "expected tensors by name"),
        (
            {"fpn.merge1.0.weight": torch.ones(2)},
            r"resnet50: .*missing.*1 entries of another shape",
        ),
        ({"stem": torch.ones(2)}, "1 entries unknown, such as stem"),
    ],
)
def test_files_that_are_not_its_weights(tmp_path: Path, content: object, message: str) -> None:
    write(tmp_path / "w.pth", content)
    with pytest.raises(WeightsError, match=rf"w\.pth: .*{message}"):
        detector(tmp_path / "w.pth")


def test_weights_of_the_other_network(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"mobilenet0\.25: .*missing.*unknown") as error:
        detector(weights, network="mobilenet0.25")
    assert len(str(error.value)) < 500


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        detector(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match=r"detector\.retinaface\.weights"):
        detector(None, network="mobilenet0.25")


def test_released_weights_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = tmp_path / "fer_batch" / "retinaface_resnet50_2020-07-20-f168fae3c.zip"
    cached.parent.mkdir()
    cached.write_bytes(b"cut")
    with pytest.raises(WeightsError, match=rf"{cached}.*f168fae3c.*remove it"):
        detector(None)


@pytest.fixture(scope="module")
def mobile(shared: Path):
    path = shared / "weights/retinaface_mnet025_m2man.pth"
    return detector(path, network="mobilenet0.25", longest_side_px=640)


def test_finds_annotated_noses(mobile, shared: Path) -> None:
    noses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (shared / "media/images/noses.csv").open() as file:
        for row in csv.DictReader(file):
            here = [(float(row["nose_x_px"]), float(row["nose_y_px"]))] if row["nose_x_px"] else []
            noses[row["image"]] += here
    frames = [cv2.imread(str(shared / "media/images" / name))[..., ::-1] for name in noses]
    faces = mobile.detect(frames)
    n_found = 0
    for row, points in enumerate(noses.values()):
        boxes = faces.box_px[faces.frame_row == row]
        tips = faces.points_px[faces.frame_row == row, 2]
        assert points or not len(boxes)
        for point in points:
            holds = ((boxes[:, :2] <= point) & (point <= boxes[:, 2:])).all(axis=1)
            off = np.linalg.norm(tips - point, axis=1) / (boxes[:, 2] - boxes[:, 0])
            n_found += (holds & (off < 0.15)).any()
    assert n_found >= 42


def test_points_are_in_order(mobile, shared: Path) -> None:
    frame = cv2.imread(str(shared / "media/images/ternaus_13.jpg"))[..., ::-1]
    points = mobile.detect([frame]).points_px
    assert len(points) == 3
    right_eye, left_eye, nose, right_mouth, left_mouth = points.transpose(1, 0, 2)
    assert (right_eye[:, 0] < left_eye[:, 0]).all()  # the person's right is our left
    assert (right_mouth[:, 0] < left_mouth[:, 0]).all()
    assert (np.maximum(right_eye, left_eye)[:, 1] < nose[:, 1]).all()
    assert (nose[:, 1] < np.minimum(right_mouth, left_mouth)[:, 1]).all()
