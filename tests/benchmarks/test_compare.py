"""Comparing two runs: what moved is found, what did not is left alone, and nothing is dropped in silence."""

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.compare import ComparisonError, _variance, compare
from benchmarks.results import Ceilings, Row, Run

PEERS = ("numpy", "opt_einsum", "cotengra", "torch")
DEVICE = {"kind": "cpu", "name": "a processor", "cores": 2, "threads": 2}
VERSIONS = {"gpueinsum": "1", "numpy": "2.0", "blas": "a 0.3", "opt_einsum": "3.4", "cotengra": "0.7", "torch": "2.9"}


def row(name="matmul", seconds=None, **changed):
    """A row, of ours alone or of these seconds."""
    given = {
        "table": "einsum",
        "family": "GEMM",
        "name": name,
        "equation": "ij,jk->ik",
        "sizes": {"i": 2, "j": 3, "k": 5},
    }
    given |= {"dtype": "float32", "source": "", "flops": 60, "bytes_moved": 124, "bound": "gemm", "input_sets": 1}
    return Row(**(given | {"seconds": {"gpueinsum": [1e-3]} if seconds is None else seconds} | changed))


def run(*rows, **changed):
    given = {"date": "a day", "device": DEVICE, "versions": VERSIONS, "method": {"quick": False}}
    return Run(**(given | {"ceilings": Ceilings((), (), ()), "rows": rows} | changed))


def steady(ours=1.0, rounds=30, peers=PEERS, **changed):
    """A row whose samples scatter by 2 %, and whose peers all take a second."""
    wave = [1 + 0.03 * math.sin(number) for number in range(rounds)]
    times = {"gpueinsum": [ours * (2 - x) for x in wave]}
    return row(seconds=times | dict.fromkeys(peers, wave), **changed)


def slowed(by, **changed):
    return compare(run(steady(**changed)), run(steady(by, **changed)))


def drawn(rng, noise=0.05, rows=125, slower=1.0, first=None, runs=0.0):
    """A run of random times: a drift for each row, noise in each sample, five rounds for the first five rows.

    `slower` is how much ours takes more in those five, `first` what every first peer does, `runs` the scatter of a call
    from run to run.
    """
    made = []
    for number in range(rows):
        rounds = 5 if number < 5 else int(np.exp(rng.uniform(np.log(3), np.log(60))))
        drift = rng.normal(0, 0.2)
        times = {}
        for name in ("gpueinsum", *PEERS[: 3 + number % 2]):
            factor = slower if name == "gpueinsum" and number < 5 else first if first and name == PEERS[0] else 1
            logs = drift + rng.normal(0, runs) + rng.normal(0, noise, rounds)
            times[name] = (factor * np.exp(logs)).tolist()
        made.append(row(f"row {number}", times))
    return run(*made)


# ---------------------------------------------------------------- movements


def test_a_run_beside_itself_has_not_moved():
    found = slowed(1)
    [moved] = found.movements
    assert (moved.factor, found.losses, found.mean) == (1, (), pytest.approx(1))
    assert "1 of 1 rows within noise" in found.text()
    assert "slower" not in found.text()


def test_a_slower_row_is_a_loss_and_a_faster_one_is_none():
    assert slowed(1.4).losses == ("einsum: matmul, float32",)
    assert slowed(1 / 1.4).losses == ()
    assert "faster beyond noise:\n  einsum: matmul, float32                        -28.6%" in slowed(1 / 1.4).text()


def test_a_machine_that_is_slower_for_all_moves_nothing():
    old = steady()
    twice = {name: [2 * x for x in times] for name, times in old.seconds.items()}
    [moved] = compare(run(old), run(row(seconds=twice))).movements
    assert moved.factor == pytest.approx(1)
    assert (moved.old, moved.new) == (old.median("gpueinsum"), 2 * old.median("gpueinsum"))


def test_no_loss_is_below_ten_percent_however_sure():
    rows = [steady(name=f"row {number}", rounds=100) for number in range(50)]
    slower = [steady(1.08, name=f"row {number}", rounds=100) for number in range(50)]
    found = compare(run(*rows), run(*slower))
    assert all(moved.is_beyond_noise for moved in found.movements)
    assert found.losses == ()
    assert "slower beyond noise:\n  einsum: row 0, float32                          +8.0%" in found.text()


def test_one_peer_that_is_slower_all_the_run_does_not_move_a_row():
    old, new = steady(), steady()
    hit = dict(new.seconds) | {"torch": [1.5 * x for x in new.seconds["torch"]]}
    [moved] = compare(run(old), run(row(seconds=hit))).movements
    assert moved.factor == pytest.approx(1)


def test_peers_that_disagree_leave_a_row_in_doubt():
    calm = [steady(name=f"row {number}") for number in range(50)]
    moves = dict(zip(("gpueinsum", *PEERS), (1.3, 1.5, 1.0, 0.7, 0.5), strict=True))
    disagreeing = {name: [moves[name] * x for x in times] for name, times in steady().seconds.items()}
    found = compare(run(steady(), *calm), run(row(seconds=disagreeing), *calm))
    assert found.losses == ()
    assert "slower by more than 10%, to be measured again: einsum: matmul, float32 +" in found.text()
    agreeing = compare(run(steady(), *calm), run(steady(found.movements[0].factor), *calm))
    assert agreeing.losses == ("einsum: matmul, float32",)


def test_the_noisier_ours_the_less_sure_a_row_and_peers_make_up_for_each_other():
    rng = np.random.default_rng(5)

    def error(ours, peers):
        def scattered(name):
            times = {"gpueinsum": rng.normal(0, ours, 20)} | {peer: rng.normal(0, peers, 20) for peer in PEERS}
            return row(name, {peer: np.exp(logs).tolist() for peer, logs in times.items()})

        old, new = (run(*(scattered(f"row {number}") for number in range(60))) for _ in range(2))
        return np.median([moved.error for moved in compare(old, new).movements])

    # 1.05 sqrt(2/20) of the scatter for 20 rounds in each of two runs; sqrt(pi/8) of that for the median of four peers
    assert error(ours=0.1, peers=0.01) == pytest.approx(0.0332, rel=0.15)
    assert 0.036 < error(ours=0.1, peers=0.1) < 0.049  # 0.0392, and a little for what the peers may hide


def test_a_row_with_one_peer_is_less_sure_than_one_with_four():
    noise = [steady(name=f"row {number}") for number in range(20)]
    errors = []
    for peers in (PEERS[:1], PEERS):
        found = compare(run(steady(peers=peers), *noise), run(steady(1.5, peers=peers), *noise))
        errors.append(found.movements[0].error)
    assert errors[0] > 1.08 * errors[1]


def test_the_scatter_of_few_rounds_is_not_taken_for_less():
    rng = np.random.default_rng(6)
    for rounds in (2, 3, 5, 9, 100):
        scatter = np.mean([math.sqrt(_variance(rng.normal(0, 1, rounds))) for _ in range(1000)])
        assert scatter == pytest.approx(1, abs=0.08)


def test_fewer_rounds_make_a_row_less_sure():
    rng = np.random.default_rng(4)
    seconds = {name: np.exp(rng.normal(0, 0.1, 50)).tolist() for name in ("gpueinsum", *PEERS)}
    short = {name: times[:3] for name, times in seconds.items()}
    [many], [few] = (compare(run(row(seconds=times)), run(row(seconds=times))).movements for times in (seconds, short))
    assert few.error > 1.4 * many.error


def test_a_single_round_is_no_proof_but_no_error_either():
    [moved] = slowed(1.15, rounds=1).movements
    assert moved.factor == pytest.approx(1.15)
    assert not moved.is_beyond_noise


# ---------------------------------------------------------------- which peers count


def test_a_peer_of_another_version_is_not_compared_with():
    new = run(steady(), versions=VERSIONS | {"torch": "3.0"})
    found = compare(run(steady()), new)
    assert found.movements[0].peers == ("numpy", "opt_einsum", "cotengra")
    assert found.replaced == ["torch"]
    assert "peers of another version, not compared with: torch" in found.text()
    assert "differs: torch 2.9 -> 3.0" in found.text()


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ("numpy", ("torch", "opt_einsum torch")),  # what computes with numpy has changed with it
        ("blas", ("torch", "opt_einsum torch")),
        ("torch", ("numpy optimized", "opt_einsum", "ceiling")),
        ("opt_einsum", ("numpy optimized", "ceiling")),  # by which torch.einsum finds its order
        ("cotengra", ("numpy optimized", "opt_einsum", "torch", "opt_einsum torch", "ceiling")),
    ],
)
def test_a_peer_changes_with_everything_that_it_computes_with(changed, left):
    rows = steady(peers=("numpy optimized", "opt_einsum", "torch", "opt_einsum torch", "ceiling"))
    found = compare(run(rows), run(rows, versions=VERSIONS | {changed: "another"}))
    assert found.movements[0].peers == left


def test_on_cuda_peers_compute_with_cupy_whatever_numpy_is():
    device = DEVICE | {"kind": "cuda"}
    rows = steady(peers=("cupy", "opt_einsum", "torch"))
    old = run(rows, device=device, versions=VERSIONS | {"cupy": "14"})
    for changed, left in (("numpy", ("cupy", "opt_einsum", "torch")), ("cupy", ("torch",))):
        assert (
            compare(old, run(rows, device=device, versions={**old.versions, changed: "x"})).movements[0].peers == left
        )


@pytest.mark.parametrize("changed", [{"flops": 61}, {"bytes_moved": 125}])
def test_the_ceiling_counts_only_where_the_plan_has_the_same_work(changed):
    old, new = steady(peers=("ceiling",)), steady(peers=("ceiling",), **changed)
    assert compare(run(old), run(old)).movements[0].peers == ("ceiling",)
    assert compare(run(old), run(new)).movements[0].peers == ()


def test_our_other_calls_are_no_peers():
    rows = steady(peers=("torch", "forward", "separate"), own=("gpueinsum", "forward", "separate"))
    assert compare(run(rows), run(rows)).movements[0].peers == ("torch",)
    fewer = steady(peers=("torch", "forward", "separate"))
    assert compare(run(fewer), run(rows)).movements[0].peers == ("torch",)


def test_without_a_peer_absolute_times_count_from_twice_as_slow():
    found = slowed(1.6, peers=())
    assert found.losses == ()
    assert found.mean is None
    worse = slowed(2.5, peers=())
    assert worse.losses == ("einsum: matmul, float32",)
    assert "ABSOLUTE times, for want of a common peer" in worse.text()


# ---------------------------------------------------------------- rows that have no two times

WRONG = {"gpueinsum": "WRONG: off by 3"}


def test_a_row_that_is_newly_wrong_is_a_loss():
    found = compare(run(steady()), run(row(seconds={}, faults=WRONG)))
    assert found.losses == ("einsum: matmul, float32",)
    assert "newly wrong:\n  einsum: matmul, float32: gpueinsum WRONG: off by 3" in found.text()


def test_a_row_that_is_no_longer_timed_is_a_loss():
    found = compare(run(steady()), run(row(seconds={"numpy": [1.0]}, left_out={"gpueinsum": "too large"})))
    assert found.broken == {"einsum: matmul, float32": "gpueinsum not timed: too large"}
    assert found.losses == ("einsum: matmul, float32",)


def test_a_new_row_that_is_wrong_is_a_loss_too():
    found = compare(run(), run(row(seconds={}, faults=WRONG)))
    assert (found.added, found.losses) == (["einsum: matmul, float32"], ("einsum: matmul, float32",))


def test_another_call_of_ours_that_is_newly_wrong_is_a_loss_beside_the_movement():
    own = ("gpueinsum", "forward")
    old, new = steady(own=own), steady(own=own, faults={"forward": "FAILED: no memory"})
    found = compare(run(old), run(new))
    assert found.broken == {"einsum: matmul, float32": "forward FAILED: no memory"}
    assert len(found.movements) == 1
    assert found.losses == ("einsum: matmul, float32",)


def test_a_wrong_peer_is_no_loss():
    faulty = steady(peers=PEERS[:3], faults={"torch": "FAILED: no such dtype"})
    assert compare(run(steady()), run(faulty)).losses == ()


def test_a_row_that_is_right_again_is_a_gain():
    found = compare(run(row(seconds={}, faults=WRONG)), run(steady()))
    assert (found.losses, list(found.mended)) == ((), ["einsum: matmul, float32"])
    assert "right again:\n  einsum: matmul, float32: gpueinsum WRONG: off by 3" in found.text()


def test_a_row_that_is_wrong_in_both_is_shown_but_not_as_a_loss():
    wrong = run(row(seconds={}, faults=WRONG))
    found = compare(wrong, wrong)
    assert (found.losses, found.mended, list(found.still_broken)) == ((), {}, ["einsum: matmul, float32"])
    assert "wrong in both:\n  einsum: matmul, float32: gpueinsum WRONG" in found.text()


def test_rows_of_one_run_only_are_named():
    found = compare(run(steady(name="former")), run(steady(name="latter")))
    assert (found.movements, found.losses) == ([], ())
    assert "only in the new run (1): einsum: latter, float32" in found.text()
    assert "only in the old run (1): einsum: former, float32" in found.text()


@pytest.mark.parametrize("changed", [{"equation": "ij,kj->ik"}, {"sizes": {"i": 2, "j": 3, "k": 7}}])
def test_a_name_for_another_expression_is_not_compared(changed):
    found = compare(run(steady()), run(steady(**changed)))
    assert (found.redefined, found.movements) == (["einsum: matmul, float32"], [])
    assert "of the same name, but not the same (1): einsum: matmul, float32" in found.text()


def test_the_same_name_in_another_dtype_precision_or_table_is_another_row():
    rows = [steady(), steady(dtype="float64"), steady(precision="tf32"), steady(table="gradients")]
    assert len({moved.key for moved in compare(run(*rows), run(*rows)).movements}) == 4


def test_two_rows_of_one_name_are_refused():
    with pytest.raises(ComparisonError, match="rows of the same name: einsum: matmul, float32"):
        compare(run(steady()), run(steady(), steady()))


# ---------------------------------------------------------------- the runs' surroundings


@pytest.mark.parametrize("changed", [{"kind": "cuda"}, {"name": "another"}])
def test_another_device_is_refused(changed):
    with pytest.raises(ComparisonError, match="the old run is of a processor"):
        compare(run(steady()), run(steady(), device=DEVICE | changed))


def test_other_differences_are_said_at_the_top():
    new = run(
        device=DEVICE | {"threads": 4},
        versions=VERSIONS | {"numpy": "2.1", "jax": "0.4"},
        method={"quick": True, "seconds_taken": 7},
    )
    assert compare(run(), new).text().splitlines()[:6] == [
        "a day -> a day",
        "  differs: threads 2 -> 4",
        "  differs: numpy 2.0 -> 2.1",
        "  differs: jax unknown -> 0.4",
        "  differs: quick False -> True",
        "",
    ]


def test_the_text_shows_losses_first_the_largest_first_and_then_the_gains():
    factors = {"a": 1.5, "b": 2.0, "c": 0.5, "d": 0.4, "e": 1.0}
    old, new = (run(*(steady(by if new else 1, name=key) for key, by in factors.items())) for new in (False, True))
    text = compare(old, new).text()
    shown = [line.split()[1] for line in text.splitlines() if line.startswith("  einsum")]
    assert shown == ["b,", "a,", "d,", "c,"]
    assert "1 of 5 rows within noise" in text
    mean = math.prod(factors.values()) ** (1 / 5)
    assert f"{mean:.3f} times as long as before (geometric mean of 5 rows)" in text


def test_two_empty_runs_have_nothing_to_say():
    assert compare(run(), run()).text() == "a day -> a day\n\n0 of 0 rows within noise"


# ---------------------------------------------------------------- the criterion, simulated


def test_two_runs_that_differ_by_chance_alone_have_no_loss():
    rng = np.random.default_rng(0)
    for noise, runs in ((0.02, 0), (0.05, 0), (0.05, 0.04), (0.10, 0)):
        found = compare(drawn(rng, noise, runs=runs), drawn(rng, noise, runs=runs))
        assert found.losses == ()
        assert sum(moved.is_beyond_noise for moved in found.movements) <= 1
        assert found.mean == pytest.approx(1, abs=0.02)


def test_a_quarter_slower_is_found_in_five_rounds():
    rng = np.random.default_rng(1)
    losses = [compare(drawn(rng, rows=60), drawn(rng, rows=60, slower=1.25)).losses for _ in range(6)]
    expected = {f"einsum: row {number}, float32" for number in range(5)}
    assert sum(len(expected & {*found}) for found in losses) >= 27  # of 30
    assert not any({*found} - expected for found in losses)


def test_a_peer_that_is_slower_in_every_row_makes_no_loss_and_hides_none():
    rng = np.random.default_rng(2)
    old = drawn(rng, 0.02, rows=60)
    assert compare(old, drawn(rng, 0.02, rows=60, first=0.75)).losses == ()
    expected = tuple(f"einsum: row {number}, float32" for number in range(5))
    assert sorted(compare(old, drawn(rng, 0.02, rows=60, first=1.3, slower=1.25)).losses) == sorted(expected)


def test_where_calls_change_from_run_to_run_more_is_needed():
    rng = np.random.default_rng(3)
    calm, restless = (compare(drawn(rng, runs=runs), drawn(rng, runs=runs)) for runs in (0, 0.06))
    errors = [np.median([moved.error for moved in found.movements]) for found in (calm, restless)]
    assert errors[0] < 0.036  # which the rounds alone explain
    assert errors[1] > 2 * errors[0]


def test_a_comparison_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        slowed(1).old = "another day"
