"""What each class of kernel should reach: loads under way from machine code, and the table."""

import pytest

from benchmarks import cubin, kernels

CODE = """
.text.kernel:
        /*0000*/                   LDG.E.128 R12, desc[UR12][R8.64] ;
        /*0010*/              @!P0 LDG.E.128 R16, desc[UR12][R10.64] ;
        /*0020*/               @P0 LDG.E R20, desc[UR12][R10.64] ;
        /*0030*/                   IADD3 R4, R5, 0x1, RZ ;
        /*0040*/                   FADD R4, R4, {needed} ;
        /*0050*/                   LDG.E.128 R24, desc[UR12][R6.64] ;
.L_x_1:
        /*0060*/                   LDG.E.128 R28, desc[UR12][R6.64] ;
        /*0070*/              @!P0 BRA `({label}) ;
.L_x_2:
"""


@pytest.mark.parametrize(
    ("needed", "label", "under_way"),
    [("R6", ".L_x_2", 64), ("R15", ".L_x_2", 32), ("R19", ".L_x_2", 32), ("R20", ".L_x_2", 64), ("R6", ".L_x_1", 48)],
)
def test_loads_are_under_way_until_one_is_needed_or_a_loop_begins(needed, label, under_way):
    assert cubin._under_way(CODE.format(needed=needed, label=label), 16) == under_way


def test_the_table_has_a_line_for_each_launch_that_counts(monkeypatch, capsys):
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    monkeypatch.setattr(kernels, "CLASSES", (("sum of rows", "ij->i", "i=262144 j=1024", "float32"),))
    monkeypatch.setattr(kernels, "loads_under_way", lambda code, width: 4 * width)
    assert kernels.main() == 0
    [titles, _, line] = capsys.readouterr().out.splitlines()
    assert titles.count("|") == line.count("|")
    assert line.startswith("| sum of rows, `ij->i` | float32 | reduce_1_float32_float32 |")


@pytest.mark.parametrize(
    ("stretch", "touched", "fetched", "share"),
    [
        (1 << 20, 100, 100, 1),
        (16, 100, 100, 0.397),
        (1 << 20, 100, 400, 1 / 4),
        (1 << 20, 800, 100, 0.485),
    ],
)
def test_the_least_of_the_limits_is_the_share(stretch, touched, fetched, share):
    loads, none = kernels.sectors.Traffic(100, touched, 100, fetched, 16), kernels.sectors.Traffic(0, 0, 0, 0, 0)
    counted = kernels.sectors.Counted("", loads, none, stretch)
    under_way = 1024 * min(64, stretch)
    assert kernels.Reach(62, 1024, under_way, counted).share == pytest.approx(share, rel=1e-2)
