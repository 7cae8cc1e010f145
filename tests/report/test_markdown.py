"""Names of files in Markdown."""

import pytest

from fer_batch.report.markdown import code


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a_b *c* [d](e) <b>$&\\.mp4", "a_b *c* [d](e) <b>$&\\.mp4"),
        ("a|b`c``", r"a\x7cb\x60c\x60\x60"),
        ("a\r\nb\x00\u2028\u202e", r"a\x0d\x0ab\x00\x2028\x202e"),
        ("会議 é.mp4", "会議 é.mp4"),
        ("b" * 40 + "e" * 60, "b" * 26 + "…" + "e" * 54),
    ],
)
def test_code_is_one_line_that_markdown_leaves_alone(text: str, shown: str) -> None:
    assert code(text) == f"`{shown}`"


def test_the_longest_may_be_chosen() -> None:
    assert code("x" * 200, most=200) == f"`{'x' * 200}`"
