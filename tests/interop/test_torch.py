"""torch's tensors in, torch's tensors out: values, dtypes, memory, `out=`, and what is refused in which words."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import gpueinsum as ge

torch = pytest.importorskip("torch", reason="torch is not installed: no tensors are computed with")

import gpueinsum.torch  # noqa: E402  # which needs torch

DTYPES = [
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32),
    *(torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.randn(3, 5)


@pytest.fixture
def w():
    return torch.randn(5, 7)


def product(x, w):
    return torch.einsum("ij,jk->ik", x, w)


CALLS = {
    "einsum": lambda x, w: ge.einsum("ij,jk->ik", x, w),
    "interleaved": lambda x, w: ge.einsum(x, [0, 1], w, [1, 2], [0, 2]),
    "torch's drop-in": lambda x, w: gpueinsum.torch.einsum("ij,jk->ik", x, w),
    "operands in a list": lambda x, w: gpueinsum.torch.einsum("ij,jk->ik", [x, w]),
    "with options": lambda x, w: ge.einsum("ij,jk->ik", x, w, optimize=[(0, 1)], order="C"),
    "contract": lambda x, w: ge.contract("ij,jk->ik", x, w),
    "expression": lambda x, w: ge.contract_expression("ij,jk->ik", (3, 5), (5, 7))(x, w),
    "constant first": lambda x, w: ge.contract_expression("ij,jk->ik", x, (5, 7), constants=[0])(w),
    "constant last": lambda x, w: ge.contract_expression("ij,jk->ik", (3, 5), w, constants=[1])(x),
    "plan": lambda x, w: ge.run_plan(ge.einsum_plan("ij,jk->ik", x, w), x, w),
    "value of vjp": lambda x, w: ge.vjp("ij,jk->ik", x, w)[0],
    "value of jvp": lambda x, w: ge.jvp("ij,jk->ik", (x, w), (x, None))[0],
    "tangent": lambda x, w: ge.jvp("ij,jk->ik", (x, w), (x, None))[1],
    "tensordot": lambda x, w: ge.tensordot(x, w, 1),
    "transpose": lambda x, w: ge.transpose(ge.tensordot(w, x, ([0], [1]))),
}
FOLLOWED = {"by nobody": lambda x: x, "by autograd": lambda x: x.requires_grad_()}


@pytest.mark.parametrize("follow", FOLLOWED)
@pytest.mark.parametrize("name", CALLS)
def test_every_function_gives_tensors(name, follow, x, w):
    x, w = map(FOLLOWED[follow], (x, w))
    result = CALLS[name](x, w)
    assert type(result) is torch.Tensor
    assert result.requires_grad == (follow == "by autograd")
    torch.testing.assert_close(result, product(x, w))


@pytest.mark.parametrize("follow", FOLLOWED)
def test_gradients_are_tensors(follow, x, w):
    x = FOLLOWED[follow](x)
    value, pullback = ge.vjp("ij,jk->ik", x, w)
    for cotangent in (value, value.detach().numpy(), value.tolist()):
        dx, dw = pullback(cotangent)
        torch.testing.assert_close(dx, value @ w.T)
        torch.testing.assert_close(dw, x.T @ value)
    batch = torch.randn(4, 3, 7)
    torch.testing.assert_close(pullback(batch)[0], batch @ w.T)
    assert pullback.plan.equation == "ij,jk,ik->ik,ij,jk"
    assert pullback.nbytes >= x.nbytes + w.nbytes


@pytest.mark.parametrize("follow", FOLLOWED)
def test_of_several_outputs_cotangents_may_be_none(follow, x, w):
    x = FOLLOWED[follow](x)
    g = torch.randn(3, 7)
    gradients, pullback = ge.vjp(ge.einsum_plan("ij,jk->ik", x, w).vjp(), x, w, g)
    zeros = torch.zeros_like(w)
    for got, wanted in zip(pullback((gradients[0], None)), pullback((gradients[0], zeros)), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_stays(dtype):
    x = torch.tensor([[1, 0, 1], [1, 1, 0]]).to(dtype)
    w = torch.tensor([[1, 0], [0, 1], [1, 1]]).to(dtype)
    counts = torch.tensor([[2, 1], [1, 1]])
    for result in (ge.einsum("ij,jk->ik", x, w), ge.run_plan(ge.einsum_plan("ij,jk->ik", x, w), x, w)):
        assert result.dtype is dtype
        assert torch.equal(result, counts.to(dtype))
    assert ge.einsum_plan("ij,jk->ik", x, w).dtype == str(dtype).removeprefix("torch.")
    scalar = ge.einsum("ij,ij->", x, x)
    assert (scalar.dtype, scalar.shape) == (dtype, ())


@pytest.mark.parametrize("first", DTYPES)
def test_two_dtypes_promote_as_in_torch(first):
    """uint16 and its like promote with nothing there."""
    for second in DTYPES:
        try:
            expected = torch.promote_types(first, second)
        except RuntimeError:
            continue
        assert ge.einsum("i,i->", torch.ones(3, dtype=first), torch.ones(3, dtype=second)).dtype is expected


def test_a_dtype_to_compute_in(x, w):
    result = ge.einsum("ij,jk->ik", x, w, dtype=torch.float64)
    assert result.dtype is torch.float64
    torch.testing.assert_close(result, product(x.double(), w.double()))
    leaf = x.clone().requires_grad_()
    ge.einsum("ij,jk->ik", leaf, w, dtype="complex128").real.sum().backward()
    torch.testing.assert_close(leaf.grad, w.sum(1).expand(3, 5))
    assert ge.einsum("ij,jk->ik", x, w, dtype=torch.bfloat16, casting="same_kind").dtype is torch.bfloat16


@pytest.mark.parametrize(("order", "strides"), [("C", (7, 1)), ("F", (1, 3)), ("A", (7, 1)), ("a", (7, 1))])
def test_the_order_of_a_result(order, strides, x, w):
    assert ge.einsum("ij,jk->ik", x, w, order=order).stride() == strides
    assert ge.einsum("ij->ij", x.t().contiguous().t(), order="A").stride() == (1, 3)


def test_memory_of_every_kind_is_read_as_it_lies(x, w):
    for given in (
        x,
        x.t().contiguous().t(),
        x[:, ::2].repeat(1, 2)[:, :5],
        x[:1].expand(3, 5),
        torch.randn(3, 10)[:, ::2],
    ):
        torch.testing.assert_close(ge.einsum("ij,jk->ik", given, w), product(given, w))
    assert ge.einsum("ij,jk->ik", torch.randn(0, 5), w).shape == (0, 7)
    assert torch.equal(ge.einsum("ij,jk->ik", torch.randn(3, 0), torch.randn(0, 7)), torch.zeros(3, 7))
    assert ge.einsum(",->", torch.tensor(2.0), torch.tensor(3.0)).item() == 6


def test_no_operand_is_copied(x, w, monkeypatch):
    seen = []
    numpy = torch.Tensor.numpy
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self, **how: seen.append(numpy(self, **how)) or seen[-1])
    ge.einsum("ij,jk->ik", x.requires_grad_(), w)
    assert [array.ctypes.data for array in seen] == [x.data_ptr(), w.data_ptr()]


def test_conjugates_and_negatives_are_read_as_what_they_are(w):
    z, v = torch.randn(3, 5, dtype=torch.complex64), torch.randn(5, 7, dtype=torch.complex64)
    assert z.conj().is_conj()
    torch.testing.assert_close(ge.einsum("ij,jk->ik", z.conj(), v), product(z.conj(), v))
    assert z.conj().imag.is_neg()
    torch.testing.assert_close(ge.einsum("ij,jk->ik", z.conj().imag, w), product(-z.imag, w))
    assert torch.equal(ge.einsum("ij->ji", z.conj()), z.mH)


def test_transpositions_and_diagonals_are_torchs_views():
    x = torch.zeros(3, 3, 5)
    for view in (
        ge.einsum("ijk->kij", x),
        ge.einsum("iik->ki", x),
        ge.transpose(x),
        ge.einsum(x, [0, 1, 2], [2, 0, 1]),
    ):
        version = x._version
        view += 1
        assert x._version > version
        assert view._base is x
    assert x.sum() == 45 * 3 + 15
    x = torch.randn(3, 5, 3, 5)
    assert torch.equal(ge.einsum("ijij->ji", x), torch.einsum("ijij->ji", x))


def test_a_view_of_a_leaf_is_followed(x):
    leaf = x.clone().requires_grad_()
    view = ge.einsum("ij->ij", leaf)
    assert view is not leaf
    (2 * view).sum().backward()
    assert torch.equal(leaf.grad, torch.full((3, 5), 2.0))


def test_out(x, w):
    out = torch.zeros(3, 7)
    assert ge.einsum("ij,jk->ik", x, w, out=out) is out
    torch.testing.assert_close(out, product(x, w))
    view = torch.zeros(7, 6)[:, ::2].t()
    assert ge.contract("ij,jk->ik", x, w, out=view) is view
    torch.testing.assert_close(view, product(x, w))
    wide = ge.einsum("ij,jk->ik", x, w, out=torch.zeros(3, 7, dtype=torch.float64))
    torch.testing.assert_close(wide, product(x.double(), w.double()))  # whose dtype counts, as in numpy
    square = torch.randn(3, 3)
    expected = square @ square
    torch.testing.assert_close(ge.einsum("ij,jk->ik", square, square, out=square), expected)
    expression = ge.contract_expression("ij,jk->ik", (3, 5), w, constants=[1])
    assert expression(x, out=out) is out
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        assert ge.einsum("ij,jk->ik", leaf, w, out=out) is out


def test_other_operands_become_tensors(x, w):
    for other in (w.numpy(), w.numpy()[::-1][::-1], w.numpy().astype(">f4"), w.tolist(), np.asfortranarray(w)):
        result = ge.einsum("ij,jk->ik", x, other)
        assert result.dtype is torch.float32
        torch.testing.assert_close(result, product(x, w))
    flipped = np.ascontiguousarray(w.numpy()[::-1])[::-1]
    flipped.flags.writeable = False
    torch.testing.assert_close(ge.einsum("ij,jk->ik", x, flipped), product(x, w))
    assert ge.einsum("ij,jk->ik", x, w.numpy().astype(ml_dtypes.bfloat16)).dtype is torch.float32
    for dtype in (torch.float16, torch.float32, torch.complex64):
        assert ge.einsum(",ij->ij", 2.0, x.to(dtype)).dtype is dtype
        assert ge.einsum("ij,->ij", x.to(dtype), 2).dtype is dtype
    assert ge.einsum(",ij->ij", 2.0, x.int()).dtype is torch.float32
    assert ge.einsum(",ij->ij", np.float64(2), x).dtype is torch.float64
    value, tangent = ge.jvp("ij,jk->ik", (x.numpy(), w.numpy()), (x, None))
    torch.testing.assert_close(value, tangent)


def test_numpys_array_may_change_while_autograd_keeps_it(x, w):
    x, array = x.requires_grad_(), w.numpy().copy()
    result = ge.einsum("ij,jk->ik", x, array)
    array[...] = 0
    result.sum().backward()
    torch.testing.assert_close(x.grad, w.sum(1).expand(3, 5))


def test_modules_that_hold_an_expression_are_copied_and_pickled(x, w):
    for expression in (
        ge.contract_expression("ij,jk->ik", (3, 5), (5, 7)),
        ge.contract_expression("ij,jk->ik", (3, 5), w, constants=[1]),
    ):
        module = torch.nn.Linear(5, 7)
        module.expression = expression
        arguments = (x, w)[: expression.num_args]
        expected = expression(*arguments)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            torch.testing.assert_close(twin.expression(*arguments), expected)


def test_subclasses_stay_subclasses(x, w):
    class Named(torch.Tensor):
        """One of a user's own."""

    named = x.as_subclass(Named)
    assert type(ge.einsum("ij,jk->ik", named, w)) is Named
    assert type(ge.einsum("ij->ji", named)) is Named
    leaf = named.clone().requires_grad_()
    ge.einsum("ij,jk->ik", leaf, w).sum().backward()
    torch.testing.assert_close(leaf.grad.as_subclass(torch.Tensor), w.sum(1).expand(3, 5))
    assert type(ge.einsum("ij,jk->ik", torch.nn.Parameter(x), w)) is torch.Tensor


def test_tensors_without_values_have_shapes(x, w):
    for given in (x.to("meta"), x.to("meta").requires_grad_()):
        result = ge.einsum("ij,jk->ik", given, w.to("meta"))
        assert (result.shape, result.dtype, result.device.type) == ((3, 7), torch.float32, "meta")
        assert ge.run_plan(ge.einsum_plan("ij,jk->ik", x, w), given, w.to("meta")).shape == (3, 7)
    assert ge.einsum("ij->ji", x.to("meta")).shape == (5, 3)


def test_numpys_defaults_hold_where_no_operand_is_a_tensor():
    assert type(ge.einsum("i,i->i", [1.0], [2.0])) is np.ndarray
