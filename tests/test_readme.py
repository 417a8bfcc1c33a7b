"""The README's examples, run as they stand, print what the README says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.page import family_table
from benchmarks.units import device_text

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.mark.skipif(not README.exists(), reason="the README stays in the checkout; these tests run beside it")
def test_the_examples_print_what_the_readme_shows():
    text = README.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    examples = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", text, re.DOTALL)
    assert len(examples) == text.count("```python") == 10
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue() == shown


def newest(kind):
    """The newest of the committed results on a CPU, or on a GPU."""
    runs = [results.read(path) for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    return max((run for run in runs if run.device["kind"] == kind), key=lambda run: run.date, default=None)


@pytest.mark.skipif(not README.exists(), reason="the README stays in the checkout; these tests run beside it")
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_readme_shows_the_newest_results(kind):
    text, run = README.read_text(encoding="utf-8"), newest(kind)
    assert ("**No GPU has run this project yet**" in text) == (newest("cuda") is None)
    if run is None:
        assert kind == "cuda"
        return
    assert family_table(run) in text
    assert not run.method["quick"]
    assert run.method["rows_measured"] == run.method["rows_planned"]
    for linked in re.findall(r"\((benchmarks/results/[^)]*)\)", text):
        assert (ROOT / linked).exists()
    assert device_text(run) in text
