"""Text of unknown origin in Markdown."""

from __future__ import annotations


def code(text: str, *, most: int = 80) -> str:
    r"""Any text as a piece of code, which Markdown shows as it is, also in a cell of a table.

    Backticks, bars, line breaks and what cannot be printed become ``\x`` and their number.

    Args:
        text: Such as the name of a file.
        most: Of longer text the middle is left out; more is kept of the end.
    """
    if len(text) > most:
        text = f"{text[: most // 3]}…{text[most // 3 - most :]}"
    signs = (
        sign if sign.isprintable() and sign not in "`|" else f"\\x{ord(sign):02x}" for sign in text
    )
    return f"`{''.join(signs)}`"
