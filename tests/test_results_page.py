"""docs/results.md says what the records of the trainings say, and nothing else."""

import pytest

from tests.support import ROOT


def test_page_is_written_from_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results_page

    assert (ROOT / "docs" / "results.md").read_text() == f"{results_page.page()}\n"
