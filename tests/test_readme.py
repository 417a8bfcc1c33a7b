"""The README and the pages of `docs/`: their examples run and print what they show, their links lead somewhere."""

import contextlib
import io
import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest

import gpueinsum
from benchmarks import results
from benchmarks.units import device_text
from gpueinsum.tools import cli

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
EXAMPLE = re.compile(
    r"^(?:<!-- needs: (?P<needs>[\w, ]+) -->\n)?```(?P<language>python|sh)\n(?P<code>.*?)^```\n"
    r"(?:^```text\n(?P<shown>.*?)^```)?",
    re.M | re.S,
)
# Libraries that an example may need beside those of every installation, named by a comment above it.
OPTIONAL = {"array_api_strict", "cotengra", "jax", "pyscf", "quimb", "torch"}

# The image and an installed package have the README and no `docs/`, or neither.
pytestmark = pytest.mark.skipif(not (README.exists() and DOCS.exists()), reason="the pages are in a checkout only")


@pytest.fixture(autouse=True)
def _environment():
    """Left as it was, whatever a page sets."""
    with mock.patch.dict(os.environ):
        yield


def each_page(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)(test)


def printed(function, *arguments):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        function(*arguments)
    return output.getvalue()


@each_page
def test_the_examples_of_a_page_print_what_it_shows(page):
    text, names, missing = page.read_text(encoding="utf-8"), {}, set()
    examples = [found for found in EXAMPLE.finditer(text) if found["language"] == "python"]
    assert len(examples) == text.count("```python")
    for example in examples:
        lacking = {name for name in needs(example) if not find_spec(name)}
        if not lacking:
            assert printed(exec, example["code"], names) == (example["shown"] or "")
        missing |= lacking
    if missing:
        pytest.skip(f"some examples need {', '.join(sorted(missing))}")


def needs(example):
    """The libraries without which an example is skipped, and with it all that use its names: they need them, too."""
    return re.findall(r"\w+", example["needs"] or "")


@each_page
def test_the_explain_and_profile_commands_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLE.finditer(page.read_text(encoding="utf-8")):
        for line in example["code"].splitlines():
            if line.startswith(("gpueinsum explain", "gpueinsum profile")):
                shown = printed(cli.main, shlex.split(line, comments=True)[1:])
                assert any(text in shown for text in ("total: ", "whole call: ", ": a picture of the plan"))
    for picture in tmp_path.glob("*.svg"):
        assert (DOCS / picture.name).read_text(encoding="utf-8") == picture.read_text(encoding="utf-8")


def test_all_examples_are_found():
    found = [example for page in PAGES for example in EXAMPLE.finditer(page.read_text(encoding="utf-8"))]
    assert sum(example["language"] == "python" for example in found) > 25
    assert sum("gpueinsum explain" in example["code"] for example in found) > 0
    assert {name for example in found for name in needs(example)} == OPTIONAL


def anchors(page):
    """Those that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_the_links_of_a_page_lead_to_files_and_headings(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\((?!https?:)([^)]*)\)", prose):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_names_all_public_functions():
    text = README.read_text(encoding="utf-8").split("## Public functions")[1]
    assert [name for name in gpueinsum.__all__ if f"`{name}`" not in text] == []


# ---------------------------------------------------------------- measured results


def newest(kind):
    """The newest of the committed results on a CPU, or on a GPU."""
    runs = [results.read(path) for path in (ROOT / "benchmarks" / "results").glob(f"{kind}-*.json")]
    return max(runs, key=lambda run: run.date, default=None)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_newest_results_are_shown(kind):
    readme, page = (path.read_text(encoding="utf-8") for path in (README, DOCS / "performance.md"))
    run = newest(kind)
    assert ("**No GPU has run this project yet.**" in readme) == (newest("cuda") is None)
    if run is None:
        assert kind == "cuda"
        return
    table = pytest.importorskip("benchmarks.frames", reason="tables need pandas").family_table(run)
    assert table in page
    assert table.splitlines()[-1] in readme  # that of all rows
    assert not run.method["quick"]
    assert run.method["rows_measured"] == run.method["rows_planned"]
    for text in (readme, page):
        assert device_text(run) in text
        for name in ("numpy", "opt_einsum", "jax", "cotengra"):
            assert run.versions[name] in text
