"""Running `fer-batch` inside the tests."""

from pathlib import Path

import pytest

from fer_batch.cli.main import main


def run(*arguments: str | Path) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    code = exit_info.value.code
    assert isinstance(code, int)
    return code
