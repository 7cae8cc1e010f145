"""Configuration: defaults, files, overrides, and messages about mistakes."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml

from fer_batch.config import Config, dump, load, result_hash
from fer_batch.errors import ConfigError
from fer_batch.settings import CONFIGS

DEFAULT = CONFIGS / "default.yaml"


def test_default_file_explains_every_setting() -> None:
    text = dump(Config(), commented=True)
    assert DEFAULT.read_text() == text, "run `make config`"
    assert yaml.safe_load(text) == Config().model_dump(mode="json")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for before, line in pairwise(lines):
        if line.strip() and "#" not in line:
            assert before.lstrip().startswith("#"), f"no comment above: {line}"


def test_every_choice_is_explained() -> None:
    for section in type(Config()).model_fields.values():
        for field in section.annotation.model_fields.values():
            if get_origin(field.annotation) is Literal:
                for choice in get_args(field.annotation):
                    assert re.search(rf"\b{choice}\b", field.description), choice


def test_own_values_can_be_explained_too() -> None:
    text = dump(load(None, ["sampling.fps=5", "runtime.cache_dir=/data/media"]), commented=True)
    assert "\n  fps: 5.0\n" in text
    assert "\n  cache_dir: /data/media\n" in text


def test_what_is_dumped_can_be_loaded(tmp_path: Path) -> None:
    config = load(None, ["sampling.fps=5", "detector.haar.min_face=0.05"])
    (tmp_path / "run.yaml").write_text(dump(config))
    assert load(tmp_path / "run.yaml") == config


def test_overrides_are_stronger_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("sampling: {every: 5, start_s: 2}\n")
    config = load(tmp_path / "own.yaml", ["sampling.every=7"])
    assert (config.sampling.every, config.sampling.start_s) == (7, 2)


@pytest.mark.parametrize(
    "override, message",
    [
        ("sampling.evry=2", r"^sampling\.evry: unknown setting \(did you mean sampling\.every\?"),
        ("decode.fps=5", r"decode\.fps: unknown setting \(did you mean sampling\.fps\?\)"),
        ("samplig.fps=5", r"samplig: unknown setting \(did you mean sampling\?\)"),
        ("detector.yunet.size=5", r"detector\.yunet\.size: unknown setting\. `fer-batch config"),
        ("sampling.every=0", r"sampling\.every: must be greater than or equal to 1 \(found 0\)"),
        ("sampling.every=two", "'two'"),
        ("nonsense.key=1", r"nonsense: unknown setting\. `"),
        ("every=2", r"every: unknown setting \(did you mean sampling\.every or detector\.every"),
        ("render=5", r"render: is a section"),
        ("sampling=3", r"sampling: is a section: write its settings below it \(found 3\)"),
        ("render.style=loud", r"must be 'full', .* or 'side-by-side' \(found 'loud'\)"),
        ("sampling.every", "expected key=value"),
        ("sampling.every.deep=1", "sampling.every"),
        ("decode.decoder=opencv", "'auto', 'decord' or 'pyav'"),
        (
            "detector.name=yunett",
            r"did you mean 'yunet'.*glance, haar, retinaface, yunet.*'yunett'",
        ),
        ("detector.name=[]", "valid string"),
        (
            "detector.yunett.min_score=1",
            r"detector\.yunett: unknown setting \(did you mean detector\.yunet\?",
        ),
        ("detector=haar", "detector: is a section"),
        ("sampling.end_s=-1", "greater than 0"),
        ("render.timeline=false", "render.timeline is now called render.strip"),
    ],
)
def test_mistake_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, [override])


def test_old_key_without_a_value_is_ignored() -> None:
    """As in run.json of a run that was made before the key was renamed."""
    assert load(None, ["render.timeline=null"]) == Config()


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^sampling: give either every or fps, not both\. `fer"):
        load(None, ["sampling.every=2", "sampling.fps=5"])
    with pytest.raises(ConfigError, match="must be after"):
        load(None, ["sampling.start_s=5", "sampling.end_s=4"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "sampling: [unclosed", "\x00"])
def test_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load(tmp_path / "bad.yaml")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml")


def test_hash_follows_results_only() -> None:
    base = result_hash(Config(), "w", "d")
    free = ["runtime.batch_size=3", "render.crf=30", "detector.haar.min_face=0.2"]
    assert result_hash(load(None, free), "w", "d") == base
    for change in (
        "track.min_s=1",
        "quality.min_size_px=9",
        "detector.every=2",
        "detector.yunet.min_score=0.5",
    ):
        assert result_hash(load(None, [change]), "w", "d") != base
    assert result_hash(Config(), "other weights", "d") != base
    assert result_hash(Config(), "w", "other weights") != base


@pytest.mark.parametrize(
    "settings, expected",
    [
        ([], "eac95dc620aab9fb"),
        (["detector.name=haar"], "25f522bf5308d4c8"),
        (["detector.name=retinaface"], "8fa9991e8b00d19f"),
        (
            ["detector.name=haar", "detector.every=3", "detector.haar.min_face=0.05"],
            "4fc4d3d80048b554",
        ),
        (["detector.yunet.weights=w.onnx"], "8f6020c2d1d5ec17"),
    ],
)
def test_hash_stays_so_that_old_runs_count_as_done(settings: list[str], expected: str) -> None:
    assert result_hash(load(None, settings), "w", "d") == expected
