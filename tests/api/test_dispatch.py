"""Plain arrays are called by their kinds, with the results and the errors of any other call; CuPy's on a stand-in."""

import sys

import numpy as np
import pytest
from simulated.cupy import FakeArray, stand_in
from simulated.streams import Stream

import gpueinsum as ge
from gpueinsum.api import arguments, dispatch
from gpueinsum.api.dispatch import array_kinds


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


CALLS = [
    ("ij,jk->ik", [(2, 3), (3, 5)]),
    ("ij,kj->ki", [(2, 3), (5, 3)]),
    ("ij->ji", [(2, 3)]),
    ("iij->j", [(3, 3, 5)]),
    ("i->ii", [(3,)]),
    ("ij,ij->", [(2, 3), (2, 3)]),
    ("ij,jk,kl->il", [(2, 3), (3, 5), (5, 7)]),
    ("ij,jk->ik", [(2, 0), (0, 5)]),
    (",i->i", [(), (3,)]),
    ("->", [()]),
]
LAYOUTS = {
    "c": lambda x: x,
    "f": lambda x: x.copy(order="F"),
    "reversed": lambda x: x[::-1] if x.ndim else x,
    "every other": lambda x: x.repeat(2, -1)[..., ::2] if x.ndim else x,
}


def general(expression, *operands):
    """The call, past the kinds: order="k" means what the default does."""
    return ge.einsum(expression, *operands, order="k")


@pytest.mark.parametrize(("expression", "shapes"), CALLS)
@pytest.mark.parametrize("lies", LAYOUTS)
@pytest.mark.parametrize("dtypes", ["f4 f4 f4", "f8 f4 f8", "c8 c8 c8", "i4 i4 i4", "f2 f2 f2"])
def test_results_are_those_of_any_other_call(cupy, rng, expression, shapes, lies, dtypes):
    for _ in range(2):  # from here and from there
        hosts = [
            LAYOUTS[lies](rng.integers(-3, 3, shape).astype(dtype))
            for shape, dtype in zip(shapes, dtypes.split(), strict=False)
        ]
        for operands in hosts, [*map(cupy.asarray, hosts)]:
            expected, calls = general(expression, *operands), [ge.einsum, ge.contract_expression(expression, *shapes)]
            results = [calls[0](expression, *operands), calls[1](*operands)]
            plan = ge.einsum_plan(expression, *shapes, dtype=expected.dtype)
            results += [ge.run_plan(plan, *operands)]
            for result in results:
                assert result.dtype == expected.dtype
                assert result.shape == expected.shape
                assert isinstance(result, FakeArray) == isinstance(expected, FakeArray)
                np.testing.assert_array_equal(*[getattr(x, "host", x) for x in (result, expected)])


def test_a_kind_is_looked_up_and_nothing_else(cupy, monkeypatch):
    x, plan = cupy.asarray(np.ones((2, 3))), ge.einsum_plan("ij->i", (2, 3))
    expression = ge.contract_expression("ij->i", (2, 3))

    def results():
        return [ge.einsum("ij->i", x), ge.run_plan(plan, x), expression(x)]

    first = results()
    for name in "on_device", "backend_and_arrays", "plan_options", "_new_call", "_plan_call", "signature":
        monkeypatch.setattr(dispatch, name, None)
    monkeypatch.setattr(arguments.Options, "check", None)
    for result, before in zip(results(), first, strict=True):
        np.testing.assert_array_equal(result.get(), before.get())


def test_views_are_views(cupy):
    x = cupy.asarray(np.zeros((2, 3)))
    for _ in range(2):
        view = ge.einsum("ij->ji", x)
        view[2, 1] += 5
    assert x.get()[1, 2] == 10


class Subclass(FakeArray):
    pass


def odd(cupy, first, stride):
    """Three float32 that begin so many bytes from their allocation, and lie so many bytes apart."""
    return cupy.ndarray((3,), np.dtype("f4"), cupy.cuda.alloc(64) + first, (stride,))


@pytest.mark.parametrize(
    ("operands", "error"),
    [
        (lambda cupy: [odd(cupy, 0, 6)], "operand 0: float32 elements lie at addresses that are no multiples of 4"),
        (lambda cupy: [odd(cupy, 0, 4), odd(cupy, 2, 4)], "operand 1: float32 elements lie at addresses that are no m"),
        (lambda cupy: [odd(cupy, 0, 4), np.ones(3)], "operand 1 is a numpy array but operand 0 is on a GPU"),
        (lambda cupy: [np.ones(3), odd(cupy, 0, 4)], "operand 0 is a numpy array but operand 1 is on a GPU"),
        (lambda cupy: [odd(cupy, 0, 4), [1.0, 2.0, 3.0]], None),
        (lambda cupy: [cupy.asarray(np.ones(3)), np.float32(2)], None),
        (lambda cupy: [Subclass.seeing(odd(cupy, 0, 4).host, cupy.cuda.Device(0))], None),
        (lambda cupy: [], "an einsum needs at least one operand"),
    ],
)
def test_what_is_unusual_goes_the_general_way(cupy, operands, error):
    operands = operands(cupy)
    assert array_kinds(operands) == []
    expression = ",".join("i"[: np.ndim(getattr(x, "host", x))] for x in operands)
    if error:
        for call in ge.einsum, general:
            with pytest.raises(ValueError, match=error):
                call(expression, *operands)
    else:
        result = ge.einsum(expression, *operands)
        np.testing.assert_array_equal(result.get(), general(expression, *operands).get())


@pytest.mark.parametrize("dtype", ["f4", "c16", "?"])
@pytest.mark.parametrize("stride", range(0, 40, 4))
@pytest.mark.parametrize("first", range(0, 16, 4))
def test_arrays_have_kinds_if_they_are_not_refused(cupy, dtype, stride, first):
    x = cupy.ndarray((3,), np.dtype(dtype), cupy.cuda.alloc(256) + first, (stride,))
    backend = ge.backends.select.cuda_backend()
    try:
        backend.asarray(x)
    except ge.OperandError:
        assert not array_kinds([x])
    else:
        assert array_kinds([x])


def test_no_array_on_another_device_has_a_kind_here(cupy, monkeypatch):
    x = cupy.asarray(np.ones(3))
    assert ge.einsum("i->", x) == 3
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 1)
    y = cupy.asarray(np.ones(3))
    assert array_kinds([x]) == array_kinds([y, x]) == []
    with pytest.raises(ge.OperandError, match="operand 0: an array is on device 0 but device 1 is current"):
        ge.einsum("i->", x)
    assert ge.einsum("i->", y) == 3


def test_each_device_has_programs_of_its_own(cupy, monkeypatch):
    kinds, asked = [], []
    processors = type(ge.backends.select.cuda_backend().runtime).processors
    monkeypatch.setattr(
        type(ge.backends.select.cuda_backend().runtime),
        "processors",
        property(lambda runtime: asked.append(runtime.device()) or processors.fget(runtime)),
    )
    for device in 0, 1, 0, 1:
        monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda device=device: device)
        x = cupy.asarray(np.ones((3, 7)))
        np.testing.assert_array_equal(ge.einsum("ij->i", x).get(), [7, 7, 7])
        kinds.append(tuple(array_kinds([x])))
    assert kinds[0] == kinds[2] != kinds[1] == kinds[3]
    assert asked == [0, 1]


def test_out_and_options_are_heard(cupy):
    x, out = cupy.asarray(np.ones((2, 3))), cupy.empty((2,))
    for _ in range(2):
        assert ge.einsum("ij->i", x).dtype == np.float64
        assert ge.einsum("ij->i", x, out=out) is out
        assert ge.einsum("ij->i", x, dtype="f4", casting="same_kind").dtype == np.float32
        assert ge.einsum("ij->ij", x, order="F").flags.f_contiguous
        with pytest.raises(ge.OperandError, match="operand 0 is on a GPU"):
            ge.einsum("ij->i", x, backend="cpu")


def test_constants_are_those_of_the_current_stream(cupy, monkeypatch):
    expression = ge.contract_expression("ij,jk->ik", cupy.asarray(np.eye(3)), (3, 5), constants=[0])
    x = cupy.asarray(np.ones((3, 5)))
    for stream in 0, 1, 0:
        monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda stream=stream: Stream(stream))
        np.testing.assert_array_equal(expression(x).get(), np.ones((3, 5)))
    assert expression._folded.cache_info().currsize == expression._constants_on.cache_info().currsize == 2
    assert expression._array_call.cache_info().currsize == 1


def test_without_cupy_nothing_has_a_kind_but_numpys_arrays(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert array_kinds([np.ones((2, 3)), np.ones(3)]) == [(2, 3), np.dtype(float), (3,), np.dtype(float)]
    assert array_kinds([np.ones(3), [1, 2]]) == array_kinds([np.ma.ones(3)]) == array_kinds([]) == []
