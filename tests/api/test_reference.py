"""The reference of the Python API is true: it names everything, and its examples run."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

import fer_batch
from tests.support import ROOT
from tests.support.clips import clip
from tests.support.portraits import portrait, portraits

REFERENCE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def public() -> Iterator[tuple[str, Callable[..., object]]]:
    """Functions and methods, as the reference writes them."""
    yield "process", fer_batch.process
    yield "open_run", fer_batch.open_run
    yield "Analyzer", fer_batch.Analyzer.__init__
    yield "analyzer", fer_batch.Analyzer.__call__
    for each in (fer_batch.Run, fer_batch.Analyzer):
        yield from (item for item in vars(each).items() if not item[0].startswith("_"))


def test_every_name_is_there() -> None:
    for name in fer_batch.__all__:
        assert f"`{name}`" in REFERENCE or f"`fer_batch.{name}`" in REFERENCE


@pytest.mark.parametrize("name, function", list(public()))
def test_signature_is_that_of_the_code(name: str, function: Callable[..., object]) -> None:
    words = []
    for each in list(inspect.signature(function).parameters.values()):
        if each.name != "self":
            words += ["*"] if each.kind is each.KEYWORD_ONLY and "*" not in words else []
            default = "" if each.default is each.empty else f"={each.default!r}"
            words.append(each.name + default.replace("'", '"'))
    assert f"`{name}({', '.join(words)})" in REFERENCE.replace("\n", " ")


def test_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos/monday").mkdir(parents=True)
    clip(Path("videos/interview.mp4"), portraits(1, 20))
    Image.fromarray(portrait(1)).save("videos/monday/two.png")
    Path("videos/text.png").write_text("not a picture")
    Image.fromarray(portrait(1)).save("face.png")
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", REFERENCE, re.DOTALL):
        exec(example, names)
    printed = capsys.readouterr().out
    assert "Run('results'): 3 files (2 ok, 1 failed), " in printed
    assert "text.png failed " in printed
    assert "(did you mean interview.mp4?)" in printed
    assert {path.name for path in Path.cwd().glob("*.png")} == {
        "face.png",
        "half-a-second.png",
        "annotated.png",
    }
