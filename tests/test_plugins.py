"""Detectors and classifiers of other packages: the one of docs/extending.md, installed for real."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fer_batch.config import Config, dump, load, result_hash
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError, WeightsError
from fer_batch.faces.detectors import build_detector, check_crop, find_detector
from fer_batch.models.card import find_card, find_weights
from fer_batch.models.classifier import Classifier
from fer_batch.results import store, timeline
from tests.support import plugin
from tests.support.cards import card
from tests.support.command import run as command
from tests.support.portraits import portrait

CPU = torch.device("cpu")
WHOLE = ["detector.name=whole", "detector.whole.border=0.1"]
SET = [word for setting in (*WHOLE, "classifier.weights=mouth") for word in ("--set", setting)]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    plugin.install(tmp_path / "site", monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.fromarray(portrait(1)).save(tmp_path / "in" / "a.png")
    Image.fromarray(portrait(2)).save(tmp_path / "in" / "b.png")
    return tmp_path / "in"


@pytest.mark.usefixtures("installed")
def test_run(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command("process", pictures, "-o", out, *SET) == 0
    faces = timeline.load(out)
    assert faces["media"].tolist() == ["a.png", "b.png"]
    height, width = portrait(1).shape[:2]
    box = faces.loc[0, ["x1_px", "y1_px", "x2_px", "y2_px"]].astype(float)
    np.testing.assert_allclose(box, [0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height])
    known = ["happiness", "neutral"]
    np.testing.assert_allclose(faces[known].sum(axis=1), 1, atol=1e-6)
    assert faces[[name for name in EMOTIONS if name not in known]].isna().all(axis=None)
    media = timeline.load_media(out)
    assert set(media["detector"].astype(str)) == {"whole"}
    assert set(media["model"].astype(str)) == {"mouth"}
    run = store.read_run(out)
    assert run["versions"]["my-faces"] == "0.1"
    assert run["config"]["detector"]["whole"] == {"border": 0.1}

    capsys.readouterr()
    assert command("process", pictures, "-o", out, *SET) == 0
    assert "2 files were done before" in capsys.readouterr().out
    assert command("process", pictures, "-o", out, *SET, "--set", "detector.whole.border=0") == 0
    assert "2 ok" in capsys.readouterr().out
    assert command("render", out) == 0
    for arguments in (["explain", out], ["render", out, "--style", "heatmap"]):
        assert command(*arguments) == 2
        assert "mouth is the classifier of another package" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_settings_are_those_of_any_section(tmp_path: Path) -> None:
    config = load(None, WHOLE)
    (tmp_path / "own.yaml").write_text(dump(config))
    assert load(tmp_path / "own.yaml") == load(None, base=config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert yaml.safe_load(dump(config))["detector"]["whole"] == {"border": 0.1}
    hashes = {result_hash(each, "w", "d") for each in (config, load(None, WHOLE[:1]), Config())}
    assert len(hashes) == 3
    assert "whole" not in Config().model_dump()["detector"]
    with pytest.raises(
        ConfigError, match=r"detector\.whole\.border: .*less than 0\.5 \(found 0\.6"
    ):
        load(None, ["detector.whole.border=0.6"])
    with pytest.raises(ConfigError, match=r"detector\.whole\.boarder: unknown setting"):
        load(None, ["detector.whole.boarder=0.1"])
    with pytest.raises(
        ConfigError, match=r"did you mean 'whole'.*glance, haar, retinaface, yunet, whole"
    ):
        load(None, ["detector.name=whol"])
    with pytest.raises(ConfigError, match=r"detector\.mouth: unknown setting"):
        load(None, ["detector.mouth.border=0.1"])


@pytest.mark.usefixtures("installed")
def test_command_prints_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("config", *SET) == 0
    assert yaml.safe_load(capsys.readouterr().out)["detector"]["whole"] == {"border": 0.1}


@pytest.mark.usefixtures("installed")
def test_registry_knows_it() -> None:
    detector = build_detector(load(None, WHOLE).detector, CPU)
    assert len(detector.detect([])) == 0
    assert not find_detector("whole").gives_points
    with pytest.raises(ConfigError, match=r"detector\.name=whole gives boxes only"):
        check_crop(card(crop="points"), load(None, WHOLE).detector)


@pytest.mark.usefixtures("installed")
def test_probabilities_stand_in_the_order_of_emotions() -> None:
    crops = torch.randn(5, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    mouth = Classifier("mouth", CPU, batch_size=2, flip=True)
    assert mouth.card == find_card("mouth")
    expected = torch.sigmoid(crops[:, 0, 32:].mean(dim=(1, 2))).numpy()
    np.testing.assert_allclose(mouth(crops)[:, EMOTIONS.index("happiness")], expected, atol=1e-6)
    with pytest.raises(WeightsError, match=r"no weights 'moth' \(did you mean 'mouth'\?\)"):
        find_weights("moth")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({'"my_faces:': '"nowhere:'}, "package my-faces .* nowhere:.* cannot be loaded"),
        (
            {"my_faces:detector": "my_faces:d", "my_faces:classifier": "my_faces:c"},
            "cannot be loaded",
        ),
        ({":detector": ":Settings", ":classifier": ":Settings"}, "expected a .*Spec, found"),
    ],
)
def test_package_with_a_mistake_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    plugin.install(tmp_path, monkeypatch, changes)
    with pytest.raises(ConfigError, match=said):
        load(None, WHOLE)
    with pytest.raises(ConfigError, match=said):
        find_card("mouth")
    assert load(None).detector.name == "yunet"


def test_unknown_emotion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.install(tmp_path, monkeypatch, {'"happiness"': '"joy"'})
    with pytest.raises(WeightsError, match=r"mouth: unknown emotions .*joy"):
        find_card("mouth")
