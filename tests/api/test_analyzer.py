"""Single pictures: the numbers are those of a run, to the last bit, and mistakes are named."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fer_batch
from fer_batch import Analyzer
from fer_batch.config import Config, Decode, Sampling
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import MediaError, PictureError
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader
from fer_batch.records import Bytes, Quality
from tests.api.test_run import FACES
from tests.support.clips import clip
from tests.support.portraits import portrait, portraits

NUMBERS = ["x1_px", "y1_px", "x2_px", "y2_px", "detection_score", "points_px"]
NUMBERS += [*Quality.__slots__, *EMOTIONS, "emotion", "confidence"]


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return Analyzer(settings=FACES)


def decoded(path: Path) -> Bytes:
    [file] = discovery.find([path])
    with FrameReader(file, Sampling(), Decode()) as reader:
        return np.concatenate([chunk.rgb for chunk in reader])


def same(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Whether these are the same faces with the same numbers, to the last bit."""
    pd.testing.assert_frame_equal(
        found[["face_index", *NUMBERS]].reset_index(drop=True),
        expected[["face_index", *NUMBERS]].reset_index(drop=True),
        check_exact=True,
    )
    return True


def check_against_a_run(folder: Path, out: Path, settings: dict[str, object]) -> None:
    """Compare files, PIL pictures and decoded frames, at once and one by one, with the tables."""
    run = fer_batch.process(folder, out, settings=settings)
    analyzer = Analyzer(settings=settings)
    for name in run.media().query("kind == 'image'")["media"]:
        path, expected = folder / name, run.faces(name)
        assert same(analyzer(path), expected)
        with Image.open(path) as picture:
            assert same(analyzer(picture), expected)
    for name in run.media().query("kind == 'video'")["media"]:
        frames, expected = decoded(folder / name), run.faces(name)
        assert len(expected) > 0
        found = analyzer(frames)
        assert same(found, expected)
        assert found["picture"].tolist() == expected["frame_index"].tolist()
        one_by_one = [analyzer(frame) for frame in frames]
        assert same(pd.concat(one_by_one), expected)


def test_numbers_are_those_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "a.mp4", portraits(3, 11))
    Image.fromarray(portrait(2)).save(tmp_path / "in" / "b.png")
    turned = Image.fromarray(np.rot90(portrait(1)))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "in" / "c.jpg", exif=exif)
    check_against_a_run(tmp_path / "in", tmp_path / "out", FACES)


def test_numbers_of_real_pictures_are_those_of_a_run(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "a.mp4", portraits(2, 5))
    for path in sorted((shared / "media" / "images").glob("*.jpg"))[:4]:
        (tmp_path / "in" / path.name).symlink_to(path)
    check_against_a_run(tmp_path / "in", tmp_path / "out", {})


def test_many_pictures_of_many_kinds_at_once(analyzer: Analyzer, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(portrait(1)).save(path)
    pictures = [portrait(0), str(path), portrait(2)[:, ::-1], path, Image.fromarray(portrait(3))]
    found = analyzer(pictures)
    assert found["picture"].tolist() == [str(path), 2, 2, str(path), 4, 4, 4]
    assert found["face_index"].tolist() == [0, 0, 1, 0, 0, 1, 2]
    assert same(found, pd.concat([analyzer(picture) for picture in pictures]))
    assert same(analyzer(iter(pictures)), found)
    assert analyzer([path])["picture"].tolist() == [str(path)]


def test_annotated_picture_is_that_of_a_run(analyzer: Analyzer, tmp_path: Path) -> None:
    Image.fromarray(portrait(2)).save(tmp_path / "a.png")
    run = fer_batch.process(tmp_path / "a.png", tmp_path / "out", settings=FACES)
    rgb = portrait(2)
    np.testing.assert_array_equal(analyzer.annotate(rgb), run.show("a.png"))
    np.testing.assert_array_equal(analyzer.annotate(tmp_path / "a.png"), run.show("a.png"))
    np.testing.assert_array_equal(rgb, portrait(2))  # not drawn on
    np.testing.assert_array_equal(analyzer.annotate(portrait(0)), portrait(0))
    heatmap = Analyzer(settings={**FACES, "render.style": "heatmap"}).annotate(rgb)
    shown = run.show("a.png", style="heatmap")
    np.testing.assert_allclose(np.asarray(heatmap, float), np.asarray(shown, float), atol=1)


def test_threads_share_an_analyzer(analyzer: Analyzer) -> None:
    pictures = [portrait(n % 4, n) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(analyzer, pictures))
    assert same(pd.concat(found), analyzer(pictures))


def test_no_face_is_a_table_without_rows(analyzer: Analyzer) -> None:
    some = analyzer(portrait(1))
    assert some["picture"].dtype == np.int64
    for none in (analyzer(portrait(0)), analyzer([]), analyzer([portrait(0)] * 3)):
        assert len(none) == 0
        assert none.columns.tolist() == ["picture", "face_index", *NUMBERS]
        assert none.dtypes.tolist() == some.dtypes.tolist()


def test_types_are_those_of_the_table_faces(analyzer: Analyzer, tmp_path: Path) -> None:
    Image.fromarray(portrait(1)).save(tmp_path / "a.png")
    faces = fer_batch.process(tmp_path / "a.png", tmp_path / "out", settings=FACES).faces()
    found = analyzer(portrait(1))
    assert found[["face_index", *NUMBERS]].dtypes.equals(faces[["face_index", *NUMBERS]].dtypes)


def test_size_of_batches_changes_nothing(analyzer: Analyzer) -> None:
    few = Analyzer(settings={**FACES, "runtime.batch_size": 9}, device="cpu")
    pictures = [portrait(3, number) for number in range(5)]
    assert same(few(pictures), analyzer(pictures))


@pytest.mark.parametrize(
    "picture, got",
    [
        (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\) and type float64"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\) and type uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"shape \(4, 4, 1\)"),
        (np.zeros(0, np.uint8), r"shape \(0,\)"),
        ([None], "got NoneType"),
        ([portrait(0), [1, 2]], "got list"),
        ([portrait(0), portrait(0) / 255], "float64"),
    ],
)
def test_what_is_no_picture_is_named(analyzer: Analyzer, picture, got: str) -> None:
    with pytest.raises(PictureError, match=f"expected the path of a picture, .*{got}") as raised:
        analyzer(picture)
    position = len(picture) - 1 if isinstance(picture, list) else 0
    assert str(raised.value).startswith(f"picture {position}: ")
    with pytest.raises(PictureError, match="or several; got int"):
        analyzer(7)  # type: ignore[arg-type]


def test_files_that_are_no_pictures_are_named(analyzer: Analyzer, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "clip.mp4").touch()
    said = {
        "missing.jpg": "No such file",
        "text.jpg": "not a picture",
        "clip.mp4": "is a video: use fer_batch.process",
        "": "is a folder: use fer_batch.process",
    }
    for name, message in said.items():
        with pytest.raises(MediaError, match=message) as raised:
            analyzer(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
    broken = Image.open(Path(fer_batch.__file__).parents[1] / "docs" / "styles" / "full.jpg")
    broken.fp.truncate = None
    broken.close()
    with pytest.raises(PictureError, match="picture 0: cannot be read"):
        analyzer(broken)


def test_damaged_picture_is_analysed_and_told(
    analyzer: Analyzer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(portrait(1)).save(tmp_path / "whole.jpg", quality=95)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "fer_batch"):
        analyzer(tmp_path / "half.jpg")
    assert "half.jpg is partial: " in caplog.text


@pytest.mark.parametrize(
    "settings, device, said",
    [
        ({"detector.name": "har"}, "auto", "glance, haar, retinaface, yunet"),
        ({"classifier.weights": "nothing"}, "auto", "no weights 'nothing'"),
        (None, "cuda:99", r"cuda:99 is not there"),
        (None, "gpu", "'gpu' is not a device"),
    ],
)
def test_wrong_settings_are_named(settings, device: str, said: str) -> None:
    with pytest.raises(fer_batch.FerError, match=said):
        Analyzer(settings=settings, device=device)


def test_analyzer_says_what_it_is(analyzer: Analyzer) -> None:
    assert repr(Analyzer(settings=Config(), device="cpu")).startswith("Analyzer: yunet, ferplus-")


def test_picture_behind_a_url(analyzer: Analyzer, bucket: Path, tmp_path: Path) -> None:
    Image.fromarray(portrait(1)).save(tmp_path / "a.png")
    (bucket / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    found = analyzer(str(bucket / "a.png"))
    assert same(found, analyzer(portrait(1)))
    assert found["picture"].tolist() == [str(bucket / "a.png")]
