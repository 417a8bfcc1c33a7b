"""opt_einsum's names: our functions in its place, and we as its backend."""

import pickle
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import opt_einsum
import opt_einsum.testing
import pytest
from opt_einsum.contract import PathInfo

import gpueinsum as ge
from gpueinsum.api import dispatch as call

CHAIN = "ij,jk,kl->il"


@pytest.fixture
def operands(rng):
    return rng.random((2, 3)), rng.random((3, 5)), rng.random((5, 7))


def test_contract_takes_opt_einsums_arguments(operands):
    expected = np.linalg.multi_dot(operands)
    for options in (
        {},
        {"optimize": "dp"},
        {"largest_intermediate": 20},
        {"largest_intermediate": "max_input"},
        {"memory_limit": 400},
        {"use_blas": False},
    ):
        np.testing.assert_allclose(ge.contract(CHAIN, *operands, **options), expected)
    for backend in ("auto", "numpy", "cpu", None):
        np.testing.assert_allclose(ge.contract(CHAIN, *operands, backend=backend), expected)


def test_an_unknown_backend_is_refused(operands):
    with pytest.raises(ValueError, match="backend='tensorflow' is none of"):
        ge.contract(CHAIN, *operands, backend="tensorflow")


def test_opt_einsum_contracts_with_us_as_its_backend(operands):
    expected = np.linalg.multi_dot(operands)
    np.testing.assert_allclose(opt_einsum.contract(CHAIN, *operands, backend="gpueinsum"), expected)
    expression = opt_einsum.contract_expression(CHAIN, *[x.shape for x in operands])
    np.testing.assert_allclose(expression(*operands, backend="gpueinsum"), expected)
    constant = opt_einsum.contract_expression(CHAIN, *operands[:2], operands[2].shape, constants=[0, 1])
    np.testing.assert_allclose(constant(operands[2], backend="gpueinsum"), expected)


def test_opt_einsum_contracts_many_labels_with_us(rng):
    equation, shapes = opt_einsum.testing.rand_equation(25, 5, seed=7, d_max=2)
    arrays = [rng.random(shape) for shape in shapes]
    expected = opt_einsum.contract(equation, *arrays)
    np.testing.assert_allclose(opt_einsum.contract(equation, *arrays, backend="gpueinsum"), expected)
    np.testing.assert_allclose(ge.einsum(equation, *arrays), expected)


def test_the_path_and_its_account_are_opt_einsums(operands):
    ours, theirs = ge.contract_path(CHAIN, *operands), opt_einsum.contract_path(CHAIN, *operands)
    assert list(ours[0]) == list(theirs[0])
    assert isinstance(ours[1], PathInfo)
    assert str(ours[1]) == str(theirs[1])
    assert ge.contract_path(CHAIN, *[x.shape for x in operands], shapes=True)[0] == ours[0]
    assert ge.contract_path(CHAIN, *[list(x.shape) for x in operands], shapes=True)[0] == ours[0]
    assert ge.contract_path("i,i->", (5, 6), (7, 8))[1].size_dict == {"i": 2}  # tuples are operands, too


def test_einsum_path_is_numpys(operands):
    for optimize in ("greedy", "optimal", True, False, ("greedy", 20), ["einsum_path", (0, 1), (0, 1)]):
        assert ge.einsum_path(CHAIN, *operands, optimize=optimize) == np.einsum_path(
            CHAIN, *operands, optimize=optimize
        )
    assert ge.einsum_path("日本,本語,語k->日k", *operands)[0] == np.einsum_path(CHAIN, *operands)[0]
    assert ge.einsum_path(CHAIN, *operands, optimize=opt_einsum.RandomGreedy())[0][0] == "einsum_path"


def test_an_expression_is_planned_once_and_called_with_arrays_of_any_size(operands, rng):
    expression = ge.contract_expression(CHAIN, *[x.shape for x in operands])
    np.testing.assert_allclose(expression(*operands), np.linalg.multi_dot(operands))
    others = [rng.random((4, 6)), rng.random((6, 2)), rng.random((2, 3))]
    np.testing.assert_allclose(expression(*others), np.linalg.multi_dot(others))
    out = np.empty((2, 7))
    assert expression(*operands, out=out) is out
    assert repr(expression) == "<ContractExpression('ij,jk,kl->il')>"


@pytest.mark.parametrize("constants", [[], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_constants_are_given_once(constants, operands):
    shown = [x if i in constants else x.shape for i, x in enumerate(operands)]
    expression = ge.contract_expression(CHAIN, *shown, constants=constants, optimize=[(0, 1), (0, 1)])
    rest = [x for i, x in enumerate(operands) if i not in constants]
    expression.evaluate_constants()
    for _ in range(2):
        result = expression(*rest)
        np.testing.assert_allclose(result, np.linalg.multi_dot(operands))
        result[:] = 0  # the caller's own
    single = expression(*[x.astype(np.complex64) for x in rest])
    np.testing.assert_allclose(single, np.linalg.multi_dot(operands), rtol=1e-5)


def test_what_depends_on_constants_alone_is_computed_once(operands, monkeypatch):
    a, b, c = operands
    expression = ge.contract_expression(CHAIN, a, b, c.shape, constants=[0, 1], optimize=[(0, 1), (0, 1)])
    expression(c)
    a[:] = np.nan  # no longer read
    assert np.isfinite(expression(c)).all()
    assert repr(expression) == "<ContractExpression('[ij],[jk],kl->il', constants=[0, 1])>"


@pytest.mark.parametrize("constants", [[], [0, 1]])
def test_a_call_like_an_earlier_one_decides_nothing(constants, operands, monkeypatch):
    shown = [x if i in constants else x.shape for i, x in enumerate(operands)]
    expression = ge.contract_expression(CHAIN, *shown, constants=constants)
    rest = [x for i, x in enumerate(operands) if i not in constants]
    expected = expression(*rest)
    for name in ("evaluate_arrays", "backend_for", "finish_call"):
        monkeypatch.setattr(sys.modules["gpueinsum.api.contract"], name, None)
    monkeypatch.setattr(call, "_new_call", None)
    np.testing.assert_array_equal(expression(*rest), expected)
    with pytest.raises(TypeError):  # another dtype is another call
        expression(*[x.astype(np.float32) for x in rest])


@pytest.mark.parametrize("constants", [[], [0], [1]])
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8])
def test_an_expression_gives_numpys_scalars(constants, dtype):
    x = np.arange(5, dtype=dtype)
    expression = ge.contract_expression(
        "i,i->", *[x if i in constants else (5,) for i in range(2)], constants=constants
    )
    for _ in range(2):
        result = expression(*[x] * (2 - len(constants)))
        assert (type(result), result) == (dtype, 30)


def test_an_expression_names_the_operand_that_is_no_array(operands):
    expression = ge.contract_expression(CHAIN, operands[0], *[x.shape for x in operands[1:]], constants=[0])
    with pytest.raises(ge.OperandError, match="operand 2: a NoneType is no array of numbers"):
        expression(operands[1], None)


def test_an_expression_refuses_what_it_cannot_do(operands):
    expression = ge.contract_expression(CHAIN, *[x.shape for x in operands])
    with pytest.raises(ValueError, match="takes exactly 3 array arguments but received 2"):
        expression(*operands[:2])
    with pytest.raises(ge.SubscriptsError, match="label 'j'"):
        expression(operands[0], operands[2], operands[1])
    with pytest.raises(ValueError, match="optimize cannot be False"):
        ge.contract_expression(CHAIN, *[x.shape for x in operands], optimize=False)


@pytest.mark.parametrize("constants", [[-1], [3], 0, "0", [0.5]])
def test_constants_that_are_no_positions_are_refused(constants, operands):
    with pytest.raises(ValueError, match="must list positions among the 3 operands"):
        ge.contract_expression(CHAIN, *operands, constants=constants)


def test_an_expression_is_pickled_without_what_it_computed(operands):
    a, b, c = operands
    expression = ge.contract_expression(CHAIN, a, b, c.shape, constants=[0, 1])
    expression(c)
    copy = pickle.loads(pickle.dumps(expression))
    np.testing.assert_array_equal(copy(c), expression(c))


def test_an_expression_keeps_few_constant_parts(operands, rng):
    a, b, _ = operands
    expression = ge.contract_expression(CHAIN, a, b, (5, 7), constants=[0, 1], optimize=[(0, 1), (0, 1)])
    for n in range(1, 30):
        assert expression(rng.random((5, n))).shape == (2, n)
    assert expression._folded.cache_info().currsize <= 8
    assert expression._array_call.cache_info().currsize <= 8


def test_an_expression_may_be_called_from_many_threads(operands, rng):
    a, b, _ = operands
    expression = ge.contract_expression(CHAIN, a, b, (5, 7), constants=[0, 1])
    arrays = [rng.random((5, 1 + n % 20)) for n in range(400)]  # more sizes than it keeps
    with ThreadPoolExecutor(8) as threads:
        for array, result in zip(arrays, threads.map(expression, arrays), strict=True):
            np.testing.assert_allclose(result, a @ b @ array)


def test_constants_go_with_their_expression(operands):
    a, b, c = operands
    expression = ge.contract_expression(CHAIN, a, b, c.shape, constants=[0, 1])
    expression(c)
    kept = weakref.ref(expression._folded)
    del expression
    assert kept() is None  # at once: a cycle would wait for the garbage collector, GPU memory with it
