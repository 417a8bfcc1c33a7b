"""The plots and the page show every row of a run, and show it right."""

from __future__ import annotations

import dataclasses
import doctest
import html
import html.parser
import itertools
import random
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, units
from benchmarks.page import family_table, page, write_page
from benchmarks.plot import write_plots
from benchmarks.results import Ceilings, CopyCeiling, GemmCeiling, Overhead, Row, Run

# ---------------------------------------------------------------- runs that nobody measured

_CPU_PEERS = (
    "numpy",
    "numpy optimized",
    "opt_einsum",
    "opt_einsum torch",
    "opt_einsum jax",
    "cotengra",
    "torch",
    "jax",
)
_CUDA_PEERS = (
    *("cupy", "cupy cutensor", "opt_einsum", "opt_einsum torch", "opt_einsum jax"),
    *("cotengra", "torch", "jax", "cutensornet"),
)
_GIGAFLOPS = {
    **{"float32": 120, "float64": 60, "complex64": 115, "complex128": 58},
    **{"float16": 20, "bfloat16": 18, "tf32": 400},
}
_FAMILIES = {
    "GEMM": ("matmul", "transposed output", "tall and skinny", "wide", "inner product of rows", "rank 8 update"),
    "batched GEMM": ("batched matmul", "batch in the middle", "batched matrix-vector", "broadcast batch"),
    "attention": ("attention scores", "attention values", "grouped queries", "one token", "relative positions"),
    "TCCG: TTM": ("abcd,ec->abed", "abc,dc->abd", "mode 1 of 4", "mode 3 of 4"),
    "TCCG: AO2MO": ("first quarter", "second quarter", "third quarter", "last quarter"),
    "TCCG: CCSD": ("particle ladder", "ring", "hole ladder", "singles", "abij from akic,kbcj"),
    "TCCG: CCSD(T)": tuple(f"sd_t_d{k}_{n}" for k in (1, 2) for n in (1, 4, 9)),
    "CP and Tucker": ("MTTKRP", "MTTKRP of order 4", "Tucker", "Tucker core"),
    "bilinear": ("bilinear form", "quadratic form", "bilinear layer"),
    "convolution": ("patches times kernel", "images and channels", "gradient by the kernel"),
    "batched dots": ("batched dots", "paired embeddings", "row norms"),
    "small matrices": ("batch of 4 x 4", "batch of 8 x 8", "batch of 3 x 3, interleaved"),
    "diagonals and traces": ("partial trace", "sum of diagonals", "diagonal of a batch"),
    "permuted sums": ("permuted sum", "sum of the middle", "sum of all"),
    "outer and Hadamard": ("outer product", "Hadamard", "Hadamard, broadcast"),
    "MPS and PEPS": ("MPS overlap", "MPS with an MPO", "PEPS, boundary", "PEPS of 3 x 3"),
    "circuits": ("two-qubit gate", "Sycamore, 12 qubits", "QFT"),
    "tiny chains": ("chain of 3", "chain of 10", "chain of 20"),
    "gradients": ("matrix chain 3", "matrix chain 20", "attention scores", "CCSD ring", "MTTKRP", "Tucker"),
}
_COPIES = frozenset({"diagonals and traces", "permuted sums", "outer and Hadamard", "batched dots"})
_MPS = ",".join(
    f"{a}{b}{c}"
    for a, b, c in zip(string.ascii_letters, string.ascii_letters[20:], "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ", strict=False)
)


def many_rows(kind: str = "cpu") -> Run:
    """About 125 rows (fewer on CUDA) with plausible figures, and all that can go wrong."""
    rng = random.Random(20261203)
    rows = [
        _made_up(rng, kind, family, name, dtype)
        for family, names in _FAMILIES.items()
        for name in names[: None if kind == "cpu" else 1]
        for dtype in rng.sample(("float32", "float64", "complex64", "complex128"), k=2 if rng.random() < 0.65 else 1)
    ]
    first, *_ = rows
    rows[1:1] = [
        _made_up(rng, kind, "GEMM", "matmul", "float16"),
        _made_up(rng, kind, "GEMM", "matmul", "bfloat16"),
        _made_up(rng, kind, "GEMM", "matmul", "float32", precision="tf32"),
        _made_up(rng, kind, "GEMM", "integer matmul", "int64"),
        dataclasses.replace(
            _without(first, "gpueinsum"), name="a wrong result", faults={"gpueinsum": "WRONG: off by 0.031 of 1e-5"}
        ),
        dataclasses.replace(
            _without(first, "gpueinsum"), name="a failure", faults={"gpueinsum": "FAILED: MemoryError: 12.5 GiB"}
        ),
        dataclasses.replace(_without(first, *first.peers), name="nobody to compare with"),
        dataclasses.replace(_without(first, *first.peers[1:]), name="one peer"),
        dataclasses.replace(
            first, name="one round", seconds={name: times[:1] for name, times in first.seconds.items()}
        ),
        dataclasses.replace(
            _without(first, "torch"),
            name="a wrong peer",
            faults={"torch": "WRONG: off by 0.5"},
            left_out={"jax": "float64 is switched off", "cotengra": "two operands have one path"},
        ),
    ]
    rows.append(dataclasses.replace(_made_up(rng, kind, "permuted sums", "permutation", "float64"), flops=0))
    rows.append(dataclasses.replace(_made_up(rng, kind, "permuted sums", "embedded diagonal", "float32"), flops=0))
    return _run(rows, kind)


def two_rows() -> Run:
    """Figures to check by hand: won by 2 (quartiles 1.5 and 2.5), lost by 0.5; 4 and 1 GFLOP/s; shares 0.5 and 0.25."""
    won = _row(
        "won",
        {
            "gpueinsum": (1e-3, 1e-3, 1e-3),
            "numpy": (1e-3, 2e-3, 3e-3),
            "torch": (4e-3, 4e-3, 4e-3),
            "ceiling": (5e-4, 5e-4, 5e-4),
        },
    )
    lost = _row(
        "lost",
        {
            "gpueinsum": (4e-3, 4e-3, 4e-3),
            "numpy": (8e-3, 8e-3, 8e-3),
            "torch": (2e-3, 2e-3, 2e-3),
            "ceiling": (1e-3, 1e-3, 1e-3),
        },
    )
    return _run([won, lost])


def _row(name: str, seconds: Mapping[str, Sequence[float]], family: str = "GEMM") -> Row:
    return Row(
        *("einsum", family, name, "ij,jk->ik", {"i": 100, "j": 200, "k": 100}, "float64", "a book"),
        *(4_000_000, 400_000, "gemm", 1, seconds),
    )


def _run(rows: Iterable[Row], kind: str = "cpu") -> Run:
    faster = 1 if kind == "cpu" else 300
    gemm = [
        GemmCeiling(dtype, size, 1, n, n, n, 2 * n**3, [2 * n**3 / (rate * quick * faster * 1e9)] * 3)
        for dtype, rate in _GIGAFLOPS.items()
        for size, n, quick in (("small", 64, 0.4), ("medium", 384, 0.9), ("large", 1536, 1.0))
    ]
    copies = [
        CopyCeiling("cached", 2**19, [2**19 / (45e9 * faster)] * 3),
        CopyCeiling("memory", 2**28, [2**28 / (14e9 * faster)] * 3),
    ]
    overheads = [Overhead("a product of 2 by 2 matrices", [1.9e-6, 2.0e-6, 2.1e-6]), Overhead("an empty call", [9e-8])]
    device = {
        "cpu": {"kind": "cpu", "name": "AMD EPYC", "cores": 2, "threads": 2, "cache_bytes": 2**25},
        "cuda": {"kind": "cuda", "name": "NVIDIA H200", "memory_bytes": 141 * 10**9, "cache_bytes": 50 * 2**20},
    }[kind]
    versions = {"python": "3.11.7", "gpueinsum": "0.2.0", "numpy": "2.4.6", "opt_einsum": "3.4.0", "cotengra": "0.8.3"}
    versions |= {"torch": "2.13.0", "jax": "0.10.2"} | ({"cupy": "14.2.0", "cuda": "13.0"} if kind == "cuda" else {})
    method = {"quick": False, "seconds_per_row": 4.0, "seconds_taken": 1712.3, "rounds": "20 to 200"}
    return Run("2026-12-03T10:50:18+00:00", device, versions, method, Ceilings(gemm, copies, overheads), tuple(rows))


def _made_up(rng: random.Random, kind: str, family: str, name: str, dtype: str, precision: str | None = None) -> Row:
    bound = "copy" if family in _COPIES else "gemm"
    small = family in ("small matrices", "tiny chains", "circuits")
    flops = int(10 ** (rng.uniform(4, 6) if small else rng.uniform(7.5, 9.5)))
    intensity = rng.uniform(0.1, 0.6) if bound == "copy" else 10 ** rng.uniform(0.3, 2.2)
    faster = 1 if kind == "cpu" else 300
    roof = min(_GIGAFLOPS.get(precision or dtype, 3), 14 * intensity) * 1e9 * faster
    share = rng.uniform(0.1, 0.4) if small else min(1.02, rng.gauss(0.85, 0.12))
    ours = flops / (roof * share)
    peers = _CPU_PEERS if kind == "cpu" else _CUDA_PEERS
    gradients = family == "gradients"
    medians = {"gpueinsum": ours, "ceiling": ours * share}
    medians |= {"forward": ours / 2.9, "separate": ours * rng.uniform(0.95, 3)} if gradients else {}
    best = rng.gauss(0, 0.03) if rng.random() < 0.25 else rng.gauss(0.2, 0.25)
    for peer in peers[5:8] if gradients else peers:
        medians[peer] = ours * 10 ** (best + rng.expovariate(3))
    noise = 0.08 if small else 0.02
    seconds = {peer: [median * rng.lognormvariate(0, noise) for _ in range(15)] for peer, median in medians.items()}
    mps = family == "MPS and PEPS"
    return Row(
        "gradients" if gradients else "einsum",
        *(family, name, f"{_MPS}->" if mps else "abcd,dcef->abef"),
        dict(zip("abcdef", rng.choices((8, 24, 64, 96, 384), k=6), strict=True)),
        *(dtype, f"the source of {family}", flops, int(flops / intensity), bound, 3, seconds, precision),
        own=("gpueinsum", "forward", "separate") if gradients else ("gpueinsum",),
        left_out={"numpy": "a loop over 4.1e+11 products"} if mps and kind == "cpu" else {},
    )


def _without(row: Row, *names: str) -> Row:
    return dataclasses.replace(row, seconds={name: row.seconds[name] for name in row.seconds if name not in names})


# ---------------------------------------------------------------- reading what was made


@dataclasses.dataclass
class Table:
    section: str
    columns: list[str] = dataclasses.field(default_factory=list)
    rows: list[list[str]] = dataclasses.field(default_factory=list)


class Reader(html.parser.HTMLParser):
    """A page's tables and ids; raises AssertionError where a tag is not closed, or another one is."""

    _VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tables: list[Table] = []
        self.words: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self._VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = found.get("id") or found.get("class") or ""
        if tag == "table":
            self.tables.append(Table(self._section))
        if tag == "tr" and "tbody" in self.open:
            self.tables[-1].rows.append([])
        if tag in ("td", "th"):
            (self.tables[-1].rows[-1] if "tbody" in self.open else self.tables[-1].columns).append("")
        if tag == "br":
            self.handle_data("\n")

    def handle_startendtag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, text):
        self.words.append(text)
        if "td" in self.open or "th" in self.open:
            cells = self.tables[-1].rows[-1] if "tbody" in self.open else self.tables[-1].columns
            cells[-1] += text

    def table(self, section: str, number: int = 0) -> Table:
        return [table for table in self.tables if table.section == section][number]

    def names(self, section: str, number: int = 0) -> list[tuple[str, str]]:
        """Each row's name and dtype; lines across all columns are none."""
        return [(row[0].split("\n")[0], row[1]) for row in self.table(section, number).rows if len(row) > 1]


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{{{_SVG}}}text")]


def addresses(text: str) -> set[str]:
    return set(re.findall(r"https?://[^\s\"'<>]*", text))


def keys(rows: Iterable[Row]) -> list[tuple[str, str]]:
    return [(row.name, row.precision or row.dtype) for row in rows]


_SVG = "http://www.w3.org/2000/svg"


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def run(request) -> Run:
    return many_rows(request.param)


@pytest.fixture(scope="module")
def plots(run, tmp_path_factory) -> Mapping[str, str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plot, "_DPI", 40)  # of the large PNGs, for time
        return svgs(run, tmp_path_factory.mktemp("plots"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with the plots of two rows."""
    pytest.importorskip("matplotlib")
    directory = tmp_path_factory.mktemp("small")
    write_plots(two_rows(), directory, "cpu")
    return directory


def svgs(run: Run, directory: Path) -> Mapping[str, str]:
    pytest.importorskip("matplotlib")
    paths = write_plots(run, directory, run.device["kind"])
    return {path.stem: path.read_text() for path in paths if path.suffix == ".svg"}


def replaced(run: Run, number: int, **changes) -> Run:
    rows = list(run.rows)
    rows[number] = dataclasses.replace(rows[number], **changes)
    return dataclasses.replace(run, rows=tuple(rows))


# ---------------------------------------------------------------- the plots


def test_every_row_is_in_the_ratios_plot(run, plots) -> None:
    words = texts(plots[f"{run.device['kind']}-ratios"])
    assert not Counter(keys(run.rows)) - Counter(itertools.pairwise(words))


def test_every_row_that_was_timed_is_in_the_roofline(run, plots) -> None:
    svg = plots[f"{run.device['kind']}-roofline"]
    points = re.findall(r"<title>(.*?), (\S+) \(", html.unescape(svg))
    timed = [row for row in run.rows if "gpueinsum" in row.seconds]
    assert Counter(points) == Counter(keys(row for row in timed if row.flops))
    words = texts(svg)
    assert all(f"{row.name}, {row.dtype}" in words for row in timed if not row.flops)


def test_wrong_rows_are_said_to_be_wrong_in_both_plots(run, plots) -> None:
    roofline, ratios = (plots[f"{run.device['kind']}-{name}"] for name in ("roofline", "ratios"))
    assert "WRONG: off by 0.031 of 1e-5" in texts(ratios)
    assert "FAILED: MemoryError: 12.5 GiB" in texts(ratios)
    assert any("not drawn" in text and "a wrong result (" in text and "a failure (" in text for text in texts(roofline))


def test_what_xml_cannot_hold_is_not_in_a_plot(tmp_path) -> None:
    failed = replaced(two_rows(), 0, seconds={}, faults={"gpueinsum": "FAILED: Error: \x1b[31mred\x00"})
    assert "FAILED: Error: ?[31mred?" in texts(svgs(failed, tmp_path)["cpu-ratios"])


def test_a_row_says_its_ratio_and_its_best_peer(small) -> None:
    words = texts((small / "cpu-ratios.svg").read_text())
    assert words[words.index("won") :].index("numpy") == 3  # after its dtype and its ratio
    start = words.index("lost", words.index("numpy"))
    assert words[start : start + 4] == ["lost", "float64", "0.50", "torch"]
    assert words[words.index("geometric mean") - 1] == "1.00"


def test_points_and_whiskers_are_where_the_figures_are() -> None:
    pytest.importorskip("matplotlib")
    (axes,) = plot.ratios(two_rows()).axes
    drawn = [[round(float(x), 6) for x in line.get_xdata()] for line in axes.lines]
    for place in ([2.0], [1.5, 2.5], [0.5], [0.5, 0.5], [0.25]):  # medians, quartiles, shares
        assert place in drawn
    (axes,) = plot.roofline(two_rows()).axes
    places = {line.get_gid(): tuple(line.get_data()) for line in axes.lines}
    assert {gid: (float(x[0]), float(y[0])) for gid, (x, y) in places.items() if gid} == {
        **{"row0": (10.0, pytest.approx(4e9)), "row1": (10.0, pytest.approx(1e9))}
    }


def test_a_roof_is_the_bandwidth_up_to_the_gemm_rate() -> None:
    pytest.importorskip("matplotlib")
    (axes,) = plot.roofline(two_rows()).axes
    ends = [[(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)] for line in axes.lines]
    ridge = (pytest.approx(60 / 14, rel=1e-6), pytest.approx(60e9, rel=1e-6))
    slope, roof = (next(line for line in ends if line[end] == ridge) for end in (-1, 0))
    assert slope[0][1] == pytest.approx(14e9 * slope[0][0])
    assert roof[-1][1] == pytest.approx(60e9)


def test_names_in_the_roofline_do_not_overlap(run) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Annotation, Text

    figure = plot.roofline(run)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    named = [text for text in axes.texts if isinstance(text, Annotation)]
    assert len(named) >= 3
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts] + [axes.get_legend().get_window_extent()]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_a_cache_no_faster_than_memory_is_no_slope(small, tmp_path) -> None:
    assert "bandwidth of a cached copy" in texts((small / "cpu-roofline.svg").read_text())
    ceilings = two_rows().ceilings
    slow = dataclasses.replace(ceilings, copy=[dataclasses.replace(ceilings.copy[1], size="cached"), ceilings.copy[1]])
    found = svgs(dataclasses.replace(two_rows(), ceilings=slow), tmp_path)
    assert "bandwidth of a cached copy" not in texts(found["cpu-roofline"])


def test_texts_that_are_moved_apart_keep_their_order_and_their_distance() -> None:
    assert plot._apart([0.1, 0.5, 0.52, 0.9], 0.1) == pytest.approx([0.1, 0.46, 0.56, 0.9])
    heights = plot._apart([0.1, 0.11, 0.15, 0.3], 0.1)
    assert all(high - low == pytest.approx(0.1) for low, high in itertools.pairwise(heights))


def test_plots_are_the_same_bytes_every_time_and_leave_nothing_else(small, tmp_path) -> None:
    again = write_plots(two_rows(), tmp_path, "cpu")
    assert sorted(path.name for path in again) == sorted(path.name for path in tmp_path.iterdir())
    assert [path.name for path in again] == [
        *("cpu-roofline.svg", "cpu-roofline.png", "cpu-ratios.svg", "cpu-ratios.png"),
    ]
    assert all(path.read_bytes() == (small / path.name).read_bytes() for path in again)
    assert again[1].read_bytes().startswith(b"\x89PNG")


def test_a_run_of_nothing_has_plots_and_a_page(tmp_path) -> None:
    empty = dataclasses.replace(_run([]), ceilings=Ceilings((), (), ()))
    found = svgs(empty, tmp_path)
    assert "no row was timed" in texts(found["cpu-roofline"])
    assert "None: no peer is faster" in page(empty, found)
    assert Reader(page(empty, found)).table("families").rows == [["all", "0", "–", "–", "0 of 0", "–", "–"]]


# ---------------------------------------------------------------- the page


def test_every_row_is_on_the_page_twice(run, plots) -> None:
    found = Reader(page(run, plots))
    assert Counter(found.names("rows")) == Counter(keys(run.rows))
    medians = found.names("rows", 1) + found.names("rows", 2)
    assert Counter(medians) == Counter(keys(run.rows))


def test_the_page_is_balanced_and_no_two_things_on_it_have_one_id(run, plots) -> None:
    found = Reader(page(run, plots))
    assert len(found.ids) == len(set(found.ids)) > 10


@pytest.mark.parametrize("broken", ["<p><b>one</p></b>", "<p>one", "one</p>"])
def test_the_reader_of_pages_notices_tags_that_are_not_balanced(broken) -> None:
    with pytest.raises(AssertionError):
        Reader(broken)


def test_nothing_on_the_page_points_elsewhere(run, plots) -> None:
    text = page(run, plots)
    assert addresses(text) == {_SVG, "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\((?!#)", text)


def test_what_is_lost_has_a_table_of_its_own_the_worst_first(run, plots) -> None:
    lost = sorted((row for row in run.rows if row.is_lost), key=lambda row: row.lead().median)
    assert len(lost) > 2
    assert Reader(page(run, plots)).names("losses") == keys(lost)


def test_what_is_wrong_comes_first_and_in_words(run, plots) -> None:
    text = page(run, plots)
    assert text.index('<section class="wrong">') < text.index('<section class="figures">')
    words = "".join(Reader(text).words)
    assert "2 rows of gpueinsum wrong or failed" in words
    assert "a wrong result (GEMM): gpueinsum WRONG: off by 0.031 of 1e-5" in words
    assert "2 rows wrong; 1 row without a peer" in words
    assert '<section class="wrong">' not in page(two_rows(), {})


def test_a_peer_that_was_wrong_or_left_out_is_said_to_be_so(run) -> None:
    lines = Reader(page(run, {})).table("rows").rows
    start = next(number for number, line in enumerate(lines) if line[0].startswith("a wrong peer"))
    assert lines[start + 1] == [
        "torch WRONG: off by 0.5; left out: jax (float64 is switched off); "
        "left out: cotengra (two operands have one path)"
    ]


def test_figures_are_those_computed_by_hand() -> None:
    found = Reader(page(two_rows(), {}))
    assert found.table("rows").rows == [
        ["GEMM"],
        [
            *("won\nij,jk->ik i=100 j=200 k=100", "float64", "1.00 ms", "numpy", "2.00 ms"),
            *("2.00", "1.50–2.50", "won", "4 GFLOP/s", "50%"),
        ],
        [
            *("lost\nij,jk->ik i=100 j=200 k=100", "float64", "4.00 ms", "torch", "2.00 ms"),
            *("0.50", "0.50–0.50", "lost", "1 GFLOP/s", "25%"),
        ],
    ]
    assert found.table("losses").rows == [
        ["lost", "float64", "GEMM", "torch", "2.00 ms", "4.00 ms", "0.50", "0.50–0.50", "25%"]
    ]
    figures = ["2", "1.00", "2.00", "1 of 2", "38%", "lost, float64: 0.50 (torch)"]  # √(2 · ½), √(2 · 2)
    assert found.table("families").rows == [["GEMM", *figures], ["all", *figures]]
    assert found.table("rows", 1).columns[2:] == [
        "gpueinsum",
        "numpy",
        "torch",
        "ceiling",
        "rounds",
        "sets of operands",
    ]
    assert found.table("rows", 1).rows[1] == ["lost", "float64", "4.00 ms", "8.00 ms", "2.00 ms", "1.00 ms", "3", "1"]
    assert found.table("ceilings").rows[5] == [
        *("float64", "large", "1 × 1,536 × 1,536 × 1,536", "60 GFLOP/s", "60 GFLOP/s – 60 GFLOP/s", "121 ms")
    ]
    words = "".join(found.words)
    assert "1 / 0 / 1won / even / lost" in words
    assert "2 contractions: each computed" in words
    assert "AMD EPYC, 2 cores, 2 threads; 2026-12-03 10:50 UTC" in words


def test_a_single_round_has_no_quartiles() -> None:
    found = Reader(page(many_rows(), {}))
    line = next(line for line in found.table("rows").rows if line[0].startswith("one round"))
    assert line[6] == "one round"


def test_bytes_are_shown_where_copies_take_the_time() -> None:
    copied = replaced(two_rows(), 0, bound="copy")
    assert Reader(page(copied, {})).table("rows").rows[1][8] == "400 MB/s"  # 400,000 bytes in 1 ms


def test_text_is_escaped_wherever_it_comes_from(tmp_path) -> None:
    evil = '<script>alert("&")</script>'
    first = two_rows().rows[0]
    seconds = {evil if name == "numpy" else name: times for name, times in first.seconds.items()}
    strange = replaced(two_rows(), 0, name=evil, family=evil, source=evil, equation=evil, dtype=evil, seconds=seconds)
    strange = replaced(strange, 1, faults={evil: f"WRONG: {evil}"}, left_out={evil: evil}, sizes={evil: 3})
    strange = dataclasses.replace(
        strange, date=evil, device={"kind": "cpu", "name": evil}, versions={evil: evil}, method={evil: {evil: [evil]}}
    )
    found = svgs(strange, tmp_path)
    assert evil in texts(found["cpu-ratios"])
    text = page(strange, found)
    assert "<script" not in text
    assert evil in Reader(text).table("rows").rows[0]


def test_many_sizes_are_counted_and_a_long_equation_is_shortened() -> None:
    long = replaced(
        two_rows(), 0, equation=",".join("abc" for _ in range(50)), sizes={chr(97 + n): 2 + n // 9 for n in range(12)}
    )
    text = page(long, {})
    name = Reader(text).table("rows").rows[1][0]
    assert name == f"won\n{'abc,' * 10}abc… 12 labels: 9 of 2, 3 of 3"
    assert f'title="{long.rows[0].equation}"' in text


def test_whatever_is_known_of_the_device_and_the_method_is_shown() -> None:
    words = "".join(Reader(page(two_rows(), {})).words)
    for fact in ("seconds per row4.00 s", "seconds taken1,712 s", "quickno", "cache bytes32 MiB", "kindcpu"):
        assert fact in words
    assert "a look, not a measurement" not in words
    quick = dataclasses.replace(two_rows(), method={"quick": True})
    assert "a look, not a measurement" in page(quick, {})
    assert "only that everything runs" in page(dataclasses.replace(two_rows(), method={"tiny": True}), {})


def test_a_mean_over_fewer_rows_says_so(tmp_path) -> None:
    seconds = two_rows().rows[1].seconds
    beside = replaced(two_rows(), 1, seconds={name: seconds[name] for name in seconds if name != "numpy"})
    assert "| **all** | 2 | 1.00 | 2.00 (1 row) | 1 of 2 | 38% |" in family_table(beside)
    title = "".join(texts(svgs(beside, tmp_path)["cpu-ratios"]))
    assert "1.00 against the best of all peers (2 rows); 2.00 against the best of numpy" in title


def test_on_cuda_the_family_is_cupys() -> None:
    assert "best of cupy, cupy cutensor, opt_einsum, cotengra ÷ gpueinsum" in page(_run([], "cuda"), {})
    assert "best of numpy, numpy optimized, opt_einsum, cotengra ÷ gpueinsum" in page(_run([]), {})


def test_a_page_is_written_with_the_plots_in_it(small, tmp_path) -> None:
    found = {path.stem: path.read_text() for path in small.iterdir() if path.suffix == ".svg"}
    write_page(two_rows(), found, tmp_path / "cpu.html")
    written = (tmp_path / "cpu.html").read_text()
    assert written == page(two_rows(), found)
    assert written.count("<svg") == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_a_page_without_plots_says_so() -> None:
    assert "There are no plots" in page(two_rows(), {})


def test_families_are_a_markdown_table() -> None:
    wrong = replaced(two_rows(), 0, seconds={}, faults={"gpueinsum": "WRONG: off by 1"}, family="a|b")
    table = family_table(wrong).splitlines()
    beside = "best of numpy, numpy optimized, opt_einsum, cotengra ÷ gpueinsum"
    assert table == [
        f"| family | rows | best peer ÷ gpueinsum | {beside} | lost beyond noise | share of the ceiling |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| a\\|b | 1 | – | – | 0 of 0, 1 wrong | – |",
        "| GEMM | 1 | 0.50 | 2.00 | 1 of 1 | 25% |",
        "| **all** | 2 | 0.50 | 2.00 | 1 of 1, 1 wrong | 25% |",
    ]


# ---------------------------------------------------------------- figures in words


def test_examples_of_figures_hold() -> None:
    tried = doctest.testmod(units)
    assert tried.attempted >= 5
    assert not tried.failed


def test_won_even_and_lost_are_told_by_the_quartiles() -> None:
    def state(*ratios: float) -> str:
        return units.outcome(_row("", {"gpueinsum": [1.0] * len(ratios), "numpy": ratios}))

    assert state(1.02, 1.04, 1.06) == "even"  # the lower quartile is 1.03
    assert state(1.04, 1.04, 1.06) == "won"
    assert state(0.94, 0.96, 0.98) == "even"  # the upper quartile is 0.97
    assert state(0.94, 0.96, 0.97) == "lost"
    assert units.outcome(_row("", {"gpueinsum": [1.0]})) == "alone"
