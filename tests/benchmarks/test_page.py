"""The plots and the page show every row of a run, show it right, and need nothing but themselves."""

import dataclasses
import doctest
import html
import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, results, units
from benchmarks.page import family_table, page
from benchmarks.results import Ceilings, CopyCeiling, GemmCeiling, Overhead, Row, Run

SVG = "http://www.w3.org/2000/svg"
EVIL = '<script>alert("&")</script>'


def row(name, ours, numpy, torch, **changed):
    """A row of 4 MFLOP and 400 kB, whose ceiling is half a millisecond."""
    seconds = {"gpueinsum": ours, "numpy": numpy, "torch": torch, "ceiling": (5e-4,) * len(ours)}
    given = {"table": "einsum", "family": "GEMM", "name": name, "equation": "ij,jk->ik", "sizes": {"i": 100, "j": 200}}
    given |= {"dtype": "float64", "source": "a book", "flops": 4_000_000, "bytes_moved": 400_000, "bound": "gemm"}
    return Row(**(given | {"input_sets": 1, "seconds": seconds} | changed))


WON = row("won", (1e-3,) * 3, (1e-3, 2e-3, 3e-3), (4e-3,) * 3)
LOST = row("lost", (4e-3,) * 3, (8e-3,) * 3, (2e-3,) * 3)


def run(*rows, kind="cpu", **changed):
    """A run, on a machine of 60 GFLOP/s and 14 GB/s."""
    ceilings = Ceilings(
        [GemmCeiling("float64", "large", 1, 1536, 1536, 1536, 2 * 1536**3, [2 * 1536**3 / 60e9] * 3)],
        [CopyCeiling("cached", 2**19, [2**19 / 45e9]), CopyCeiling("memory", 2**28, [2**28 / 14e9])],
        [Overhead("an empty call", [9e-8])],
        {"small GEMM, float32": "FAILED: no memory"},
    )
    device = {"kind": kind, "name": "AMD EPYC", "cores": 2, "threads": 2, "cache_bytes": 2**25}
    given = {"date": "2026-12-03T10:50:18+00:00", "device": device, "versions": {"numpy": "2.4.6"}}
    given |= {"method": {"quick": False, "seconds_taken": 1712.3}, "ceilings": ceilings}
    return Run(**(given | {"rows": rows} | changed))


@pytest.fixture(scope="module")
def committed():
    return results.read(Path(results.__file__).parent / "results" / "cpu-2026-11-30.json")


@pytest.fixture(scope="module")
def everything(committed):
    """The committed run, and all that can go wrong."""
    first = committed.rows[0]
    gradients = [row for row in committed.rows if row.table == "gradients" and row.outcome != "lost"][-1]
    ours = first.seconds["gpueinsum"]
    return dataclasses.replace(
        committed,
        rows=[
            *committed.rows,
            dataclasses.replace(first, name="wrong", seconds={}, faults={"gpueinsum": "WRONG: off by 0.031"}),
            dataclasses.replace(first, name="failed", seconds={}, faults={"gpueinsum": "FAILED: \x1b[31mred\x00"}),
            dataclasses.replace(first, name="alone", seconds={"gpueinsum": ours, "ceiling": ours}),
            dataclasses.replace(first, name="no ceiling", seconds={"gpueinsum": ours, "numpy": ours}),
            dataclasses.replace(first, name="unknown", dtype="float8", precision=None),
            dataclasses.replace(first, name="only moved", flops=0),
            dataclasses.replace(gradients, name=EVIL, family=EVIL, source=EVIL, equation=EVIL, left_out={EVIL: EVIL}),
        ],
        device=committed.device | {EVIL: [EVIL]},
    )


@pytest.fixture(scope="module")
def svgs(everything, tmp_path_factory):
    return drawn(everything, tmp_path_factory.mktemp("plots"))


def drawn(found, folder):
    paths = plot.write_plots(found, folder, "cpu")
    return {path.stem: path.read_text() for path in paths if path.suffix == ".svg"}


def texts(svg, kind="text"):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{{{SVG}}}{kind}")]


class Reader(HTMLParser):
    """The rows of a page's tables by section, and its ids. Raises AssertionError where tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.rows, self.words, self._section = [], [], [], "", ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "section":
            self._section = found.get("id", found.get("class"))
        if tag == "tr" and "tbody" in self.open:
            self.rows.append((self._section, []))
        if tag in ("td", "th") and "tbody" in self.open:
            self.rows[-1][1].append("")
        if tag == "br":
            self.handle_data("\n")

    def handle_startendtag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, text):
        self.words += text
        if "tbody" in self.open and ("td" in self.open or "th" in self.open):
            self.rows[-1][1][-1] += text

    def table(self, section):
        return [cells for where, cells in self.rows if where == section]

    def names(self, section):
        return [(cells[0].split("\n")[0], cells[1]) for cells in self.table(section) if len(cells) > 1]


def keys(rows):
    return [(row.name, row.type) for row in rows]


# ---------------------------------------------------------------- the plots


def test_every_row_is_in_the_ratios_plot(everything, svgs):
    words = texts(svgs["cpu-ratios"])
    shown = Counter(itertools.pairwise(words))
    assert not Counter((row.name, row.type) for row in everything.rows) - shown
    compared = sum(row.outcome in ("won", "even", "lost") for row in everything.rows)
    assert len(texts(svgs["cpu-ratios"], "title")) == compared


def test_every_row_that_computes_is_in_the_roofline(everything, svgs):
    points = [title.partition(" (")[0] for title in texts(svgs["cpu-roofline"], "title")]
    assert Counter(points) == Counter(
        f"{row.name}, {row.type}" for row in everything.rows if row.flops and row.flops_per_second
    )
    assert any("not drawn: wrong (float32), failed (float32)" in text for text in texts(svgs["cpu-roofline"]))


def test_wrong_rows_are_said_to_be_wrong_without_what_xml_cannot_hold(svgs):
    assert {"WRONG: off by 0.031", "FAILED: ?[31mred?", "no peer was timed"} <= set(texts(svgs["cpu-ratios"]))


def test_a_row_says_its_ratio_and_its_best_peer(tmp_path):
    words = texts(drawn(run(LOST, WON), tmp_path)["cpu-ratios"])
    start = words.index("GEMM")
    assert words[start + 1 : start + 4] == ["1.00  mean", "2.00  numpy", "won"]
    assert words[start + 5 : start + 7] == ["0.50  torch", "lost"]


def test_points_and_lines_are_where_the_figures_are():
    left, right = plot.ratios(run(WON, LOST))[0].axes
    points = {tuple(place) for axes in (left, right) for found in axes.collections for place in found.get_offsets()}
    assert {(2.0, 1.0), (0.5, 2.0), (0.5, 1.0), (0.125, 2.0)} <= points  # medians, and shares of the ceiling
    [axes] = plot.roofline(run(WON, LOST))[0].axes
    points = [tuple(place) for found in axes.collections for place in found.get_offsets()]
    assert points == [(10.0, pytest.approx(4e9)), (10.0, pytest.approx(1e9))]
    ends = [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.lines]
    ridge = (pytest.approx(60 / 14), pytest.approx(60e9))
    assert (ends[0][-1], ends[2][0]) == (ridge, ridge)  # the slope of memory ends where the roof begins


def test_a_cache_no_faster_than_memory_is_no_slope():
    ceilings = run().ceilings
    slow = dataclasses.replace(ceilings, copy=[dataclasses.replace(ceilings.copy[1], size="cached"), ceilings.copy[1]])
    assert [name for name, _, _ in plot._bandwidths(run())] == ["memory  14 GB/s", "cache  45 GB/s"]
    assert [name for name, _, _ in plot._bandwidths(run(ceilings=slow))] == ["memory  14 GB/s"]


def test_plots_are_the_same_bytes_every_time_and_leave_nothing_else(tmp_path):
    first, again = (plot.write_plots(run(WON, LOST), tmp_path / name, "cpu") for name in ("first", "again"))
    assert sorted(path.name for path in again) == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert [path.name for path in again] == [
        *("cpu-roofline.svg", "cpu-roofline.png", "cpu-ratios.svg", "cpu-ratios.png"),
    ]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, again, strict=True))


def test_the_committed_plots_are_those_of_the_committed_run(committed, tmp_path):
    folder = Path(results.__file__).parent / "results"
    for name, svg in drawn(committed, tmp_path).items():
        kept = (folder / f"cpu-2026-11-30-{name.removeprefix('cpu-')}.svg").read_text()
        assert texts(svg) == texts(kept)
        assert texts(svg, "title") == texts(kept, "title")


def test_a_run_of_nothing_has_plots_and_a_page(tmp_path):
    empty = run(ceilings=Ceilings((), (), ()))
    found = drawn(empty, tmp_path)
    assert "no row was timed" in texts(found["cpu-roofline"])
    assert "None: no peer is faster" in page(empty, found)
    assert Reader(page(empty, found)).table("families") == [["all", "0", "–", "", "–", "0 of 0", "–", "–"]]


# ---------------------------------------------------------------- the page


def test_every_row_is_on_the_page_twice(everything, svgs):
    found = Reader(page(everything, svgs)).names("rows")
    assert Counter(found) == Counter(2 * keys(everything.rows))


def test_the_page_is_balanced_and_points_nowhere(everything, svgs):
    text = page(everything, svgs)
    found = Reader(text)
    assert len(found.ids) == len(set(found.ids)) > 10
    assert set(re.findall(r"https?://[^\s\"'<>]*", text)) == {SVG, "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\((?!#)", text)
    assert html.escape(EVIL, quote=False) in svgs["cpu-ratios"]


@pytest.mark.parametrize("broken", ["<p><b>one</p></b>", "<p>one", "one</p>"])
def test_the_reader_of_pages_notices_tags_that_are_not_balanced(broken):
    with pytest.raises(AssertionError):
        Reader(broken)


def test_what_is_lost_has_a_table_of_its_own_the_worst_first(everything):
    lost = sorted((row for row in everything.rows if row.outcome == "lost"), key=lambda row: row.lead().median)
    assert len(lost) > 2
    assert Reader(page(everything, {})).names("losses") == keys(lost)


def test_what_is_wrong_comes_first_and_in_words(everything):
    text = page(everything, {})
    assert text.index('<section class="wrong">') < text.index('<section class="figures">')
    words = Reader(text).words
    assert "2 rows of gpueinsum wrong or failed" in words
    assert "wrong, float32 (GEMM): gpueinsum WRONG: off by 0.031" in words
    assert "2 rows wrong; 1 row without a peer" in words
    assert '<section class="wrong">' not in page(run(WON), {})


def test_figures_are_those_computed_by_hand():
    found = Reader(page(run(WON, LOST), {}))
    won = ["won\nij,jk->ik i=100 j=200", "float64", "1.00 ms", "numpy", "2.00 ms", "2.00", ""]
    lost = ["lost\nij,jk->ik i=100 j=200", "float64", "4.00 ms", "torch", "2.00 ms", "0.50", ""]
    medians = [
        ["won", "float64", "1.00 ms", "2.00 ms", "4.00 ms", "500 µs", "3", "1"],
        ["lost", "float64", "4.00 ms", "8.00 ms", "2.00 ms", "500 µs", "3", "1"],
    ]
    assert found.table("rows") == [
        ["GEMM"],
        [*won, "1.50–2.50", "4 GFLOP/s", "50%"],
        [*lost, "0.50–0.50", "1 GFLOP/s", "12%"],
        *medians,
    ]
    figures = ["2", "1.00", "", "2.00", "1 of 2", "31%", "lost, float64: 0.50 (torch)"]  # √(2 · ½), √(2 · 2)
    assert found.table("families") == [["GEMM", *figures], ["all", *figures]]
    assert found.table("ceilings")[0] == [
        *("float64", "large", "1 × 1536 × 1536 × 1536", "60 GFLOP/s", "121 ms – 121 ms"),
    ]
    for words in (
        "1 / 0 / 1won / even / lost",
        "2 contractions:",
        "AMD EPYC, 2 cores, 2 threads; 2026-12-03 10:50 UTC",
        "small GEMM, float32: FAILED: no memory",
        "cache bytes32 MiB",
        "seconds taken1,712 s",
        "quickno",
    ):
        assert words in found.words


def test_a_peer_that_was_wrong_or_left_out_is_said_to_be_so():
    changed = dataclasses.replace(WON, faults={"jax": "WRONG: off by 0.5"}, left_out={"a": "slow", "b": "slow"})
    assert Reader(page(run(changed), {})).table("rows")[2] == ["jax WRONG: off by 0.5 left out: a, b (slow) "]


def test_many_sizes_are_counted_and_a_long_equation_is_shortened():
    sizes = {chr(97 + n): 2 + n // 9 for n in range(12)}
    text = page(run(dataclasses.replace(WON, equation=",".join(["abc"] * 50), sizes=sizes)), {})
    assert Reader(text).table("rows")[1][0] == f"won\n{'abc,' * 10}abc… 12 labels: 9 of 2, 3 of 3"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"quick": True}, "a look, not a measurement"),
        ({"tiny": True}, "only that everything runs"),
        ({"rows_measured": 1, "rows_planned": 7}, "The run ended after 1 of 7 rows"),
    ],
)
def test_a_run_that_is_no_measurement_of_all_says_so(method, words):
    assert words in page(run(WON, method=method), {})
    assert words not in page(run(WON), {})


def test_on_cuda_the_library_is_cupys():
    assert "best of cupy, cupy cutensor, opt_einsum, cotengra ÷ gpueinsum" in page(run(WON, kind="cuda"), {})


# ---------------------------------------------------------------- texts


def test_families_are_a_markdown_table():
    wrong = dataclasses.replace(WON, seconds={}, faults={"gpueinsum": "WRONG: off by 1"}, family="a|b")
    fewer = dataclasses.replace(WON, seconds={name: WON.seconds[name] for name in ("gpueinsum", "torch")})
    beside = "best of numpy, numpy optimized, opt_einsum, cotengra ÷ gpueinsum"
    assert family_table(run(wrong, LOST, fewer)).splitlines() == [
        f"| family | rows | best peer ÷ gpueinsum | {beside} | lost beyond noise | share of the ceiling |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| a\\|b | 1 | – | – | 0 of 0, 1 wrong | – |",
        "| GEMM | 2 | 1.41 | 2.00 (1 row) | 1 of 2 | 12% |",
        "| **all** | 3 | 1.41 | 2.00 (1 row) | 1 of 2, 1 wrong | 12% |",
    ]


def test_examples_of_figures_hold():
    tried = doctest.testmod(units)
    assert tried.attempted >= 3
    assert not tried.failed
