"""Text that comes from outside, such as names of files, in Markdown."""

from __future__ import annotations


def code(text: str, *, most: int = 80) -> str:
    r"""Any text as inline code, which Markdown shows unchanged, also in a cell of a table.

    Backticks, bars, line breaks and characters that cannot be printed become ``\x`` and their code.

    Args:
        text: Such as the name of a file.
        most: Longer text loses its middle; more is kept of its end.
    """
    if len(text) > most:
        text = f"{text[: most // 3]}…{text[most // 3 - most :]}"
    characters = (
        character
        if character.isprintable() and character not in "`|"
        else f"\\x{ord(character):02x}"
        for character in text
    )
    return f"`{''.join(characters)}`"
