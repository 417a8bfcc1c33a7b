"""Plans as pictures: what they show, that they can be read, and that nothing in them is taken for markup."""

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import gpueinsum as ge
from gpueinsum.costs.profile import profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract
from gpueinsum.planning.checkpoint import checkpoint
from gpueinsum.schedule.schedule import schedule
from gpueinsum.tools.picture import html_fragment, html_page, page, svg
from gpueinsum.tools.rows import schedule_rows

CHAIN = ge.einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10))
_TAG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """The texts of a page, the names of its tags, its links and what they may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attributes)
        self.links |= {str(given["href"])} if "href" in given else set()
        self.anchors |= {f"#{given['id']}"} if "id" in given else set()
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def lines(text: str) -> list[list[str]]:
    """The texts of each line of a picture."""
    found = ElementTree.fromstring(text).iter()
    return [[span.text or "" for span in line.iter(f"{_TAG}tspan")] for line in found if "line" in _classes(line)]


def _classes(element: ElementTree.Element) -> list[str]:
    return element.get("class", "").split()


def test_each_array_is_a_line_with_what_it_is_and_costs() -> None:
    assert lines(svg(CHAIN)) == [
        ["%1", "jk", "30 × 20", "4.69 KiB", "operand 1"],
        ["%2", "kl", "20 × 10", "1.56 KiB", "operand 2"],
        ["%3", "jk,kl->jl", "1", "30", "10", "20", "11.7 k", "8.59 KiB", "2.34 KiB", "33.1%"],
        ["%0", "ij", "40 × 30", "9.38 KiB", "operand 0"],
        ["%4", "ij,jl->il", "1", "40", "10", "30", "23.6 k", "14.8 KiB", "3.12 KiB", "66.9%", "result"],
    ]
    assert "total: 35.3 k flops" in svg(CHAIN)


def test_a_page_and_what_notebooks_show_hold_the_same_picture() -> None:
    fragment = CHAIN._repr_html_()
    assert fragment == html_fragment(CHAIN)
    assert fragment in html_page(CHAIN)
    assert {"%4", "ij,jl->il", "66.9%", "i=40 j=30 k=20 l=10"} <= {*Page(fragment).texts}


def test_for_a_device_it_shows_time_and_copies() -> None:
    plan = ge.einsum_plan("fbea,ecfd->dcba", (72,) * 4, (72,) * 4)
    _, _, product, view = lines(svg(plan, "h200"))
    assert product[-3:] == ["5.57 ms", "100.0%", "copy ecfd as efcd and fbea as efba; 5184 x 5184 x 5184, one…"]
    assert view[-1] == "result; view"
    assert "5184 x 5184 x 5184, one call" in html_page(plan, "h200")
    with pytest.raises(ge.ProfileError):
        html_page(plan, "h999")


def test_outputs_and_what_is_computed_again_are_marked() -> None:
    shapes = [(1000, 20), *[(20, 20)] * 4]
    plan = ge.einsum_plan("bi,ij,jk,kl,lm->bm", *shapes, optimize=[(0, 1), (0, 3), (0, 2), (0, 1)])
    plan, _ = checkpoint(plan.vjp(wrt=[1, 2, 3, 4]), 400_000)
    again = plan.duplicates()
    assert again
    shown = {each[0]: each[-1] for each in lines(svg(plan))[::-1]}  # its first line
    assert {f"output {place}" for place in range(4)} <= {*shown.values()}
    assert all(shown[f"%{register}"] == f"again, as %{first}" for register, first in again.items())
    marks = [mark for mark in ElementTree.fromstring(svg(plan)).iter(f"{_TAG}circle") if "twice" in _classes(mark)]
    assert len(marks) == len(again)
    assert "computed again to save memory" in html_page(plan)


def test_measured_seconds_stand_beside_predicted_ones() -> None:
    rows = schedule_rows(schedule(CHAIN, profile("cpu")))
    texts = Page(page(CHAIN, rows, [3e-3, 1e-3])).texts
    assert {"predicted", "measured", "3.00 ms", "1.00 ms", "75.0%", "25.0%"} <= {*texts}


def test_no_label_and_no_name_of_a_device_becomes_markup() -> None:
    pair = Contract(0, 1, '<"', '"&', "<&")
    plan = Plan(('<"', '"&'), (pair,), (2,), (("<", 3), ('"', 5), ("&", 7)), "float64")
    device = replace(profile("cpu"), device="<script>alert('1')</script>\x1b\ud800")
    tags = "html head meta title style body div p b ul li svg g a rect circle path text tspan"
    assert Page(html_page(plan, device)).tags <= {*tags.split()}
    assert '<","&-><&' in Page(html_page(plan)).texts
    texts = [*ElementTree.fromstring(svg(plan, device)).itertext()]
    assert any("<script>alert('1')</script>\\x1b\\ud800" in text for text in texts)
    assert lines(svg(plan))[-1][1] == '<","&-><&'
    svg(plan, device).encode()


def test_a_picture_needs_no_other_file() -> None:
    text = html_page(CHAIN, "h200")
    assert "script" not in Page(text).tags
    assert [*re.finditer(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|src=", text)] == []
    assert "prefers-color-scheme: dark" in text


def test_thousands_of_operands_stay_a_line_each_below_the_steps_that_take_most() -> None:
    labels = [chr(0x4E00 + number) for number in range(2001)]
    terms = ",".join(a + b for a, b in itertools.pairwise(labels))
    shapes = [*[(4, 4)] * 1000, (4, 99), (99, 4), *[(4, 4)] * 998]
    path = [(0, 1), *[(0, 1998 - number) for number in range(1998)]]
    plan = ge.einsum_plan(f"{terms}->{labels[0]}{labels[-1]}", *shapes, optimize=path)
    page = Page(text := html_page(plan))
    [caption] = [index for index, text in enumerate(page.texts) if text.startswith("10 of 1999 steps: ")]
    assert [text for text in page.texts[caption:] if text.startswith("%")][:2] == ["%3000", "%2999"]
    assert page.links <= page.anchors
    assert len(page.links) == 10
    assert len(page.anchors) == 3999
    image = ElementTree.fromstring(svg(plan))
    assert int(image.get("height", "0")) > 3999 * 20
    assert int(image.get("width", "0")) < 1500
    assert len(text) < 3e6


def test_long_texts_are_cut_and_whole_in_the_tooltip() -> None:
    labels = "".join(chr(0x4E00 + number) for number in range(40))  # two characters wide each
    plan = ge.einsum_plan(f"{labels},{labels[:20]}->{labels[20:]}", (1,) * 40, (1,) * 20)
    *_, step = lines(svg(plan))
    assert step[1].endswith("…")
    assert 28 <= len(step[1]) <= 31
    assert f"{labels},{labels[:20]}-&gt;{labels[20:]}; " in svg(plan)


def test_two_plans_on_a_page_have_anchors_of_their_own() -> None:
    other = ge.einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 11))
    assert Page(html_page(CHAIN)).anchors.isdisjoint(Page(html_page(other)).anchors)


def test_plans_of_no_steps_of_no_bytes_and_beyond_floats_have_pictures() -> None:
    assert lines(svg(ge.einsum_plan("ij->ij", (3, 5)))) == [["%0", "ij", "3 × 5", "120 B", "result; operand 0"]]
    assert lines(svg(ge.einsum_plan("ij,jk->ik", (0, 5), (5, 0))))[-1][-2:] == ["0.0%", "result"]
    assert lines(svg(ge.einsum_plan("abcd,efgh->abcdefgh", *[(10**50,) * 4] * 2)))[-1][-2:] == ["100.0%", "result"]


def test_what_is_no_plan_is_refused() -> None:
    for draw in (html_page, svg):
        with pytest.raises(ge.PlanError, match="is no Plan"):
            draw("ij->i")  # type: ignore[arg-type]  # as a user might
