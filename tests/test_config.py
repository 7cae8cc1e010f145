"""Configuration: defaults, files, overrides, and what is said about mistakes."""

from pathlib import Path

import pytest
import yaml

from fer_batch.config import Config, dump, load, result_hash
from fer_batch.errors import ConfigError

DEFAULT = Path(__file__).parents[1] / "configs" / "default.yaml"


def test_default_file_lists_every_key_with_its_default() -> None:
    assert yaml.safe_load(DEFAULT.read_text()) == Config().model_dump(mode="json")


def test_what_is_dumped_can_be_loaded(tmp_path: Path) -> None:
    config = load(None, ["sampling.fps=5", "detector.haar.min_face=0.05"])
    (tmp_path / "run.yaml").write_text(dump(config))
    assert load(tmp_path / "run.yaml") == config


def test_overrides_are_stronger_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("sampling: {every: 5, start_s: 2}\n")
    config = load(tmp_path / "own.yaml", ["sampling.every=7"])
    assert (config.sampling.every, config.sampling.start_s) == (7, 2)


@pytest.mark.parametrize(
    "override, said",
    [
        ("sampling.evry=2", "sampling.evry"),
        ("render=5", "render: Input should be a valid dictionary"),
        ("sampling.every=0", "greater than or equal to 1"),
        ("sampling.every=two", "'two'"),
        ("nonsense.key=1", "nonsense"),
        ("every=2", r"every: no such setting \(did you mean sampling.every or detector.every"),
        ("sampling.every", "expected key=value"),
        ("sampling.every.deep=1", "sampling.every"),
        ("decode.decoder=opencv", "'auto', 'decord' or 'pyav'"),
        ("sampling.end_s=-1", "greater than 0"),
        ("render.timeline=false", "render.timeline is now called render.strip"),
    ],
)
def test_mistake_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(None, [override])


def test_old_key_without_a_value_is_let_be() -> None:
    """As in run.json of a run that was made before the key was renamed."""
    assert load(None, ["render.timeline=null"]) == Config()


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="either every or fps"):
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
    free = ["runtime.batch_size=3", "render.crf=30", "detector.yunet.min_score=0.5"]
    assert result_hash(load(None, free), "w", "d") == base
    for change in ("track.min_iou=0.4", "detector.every=2", "detector.haar.min_face=0.2"):
        assert result_hash(load(None, [change]), "w", "d") != base
    assert result_hash(Config(), "other weights", "d") != base
    assert result_hash(Config(), "w", "other weights") != base
