"""Programs that are written down: torch.compile without breaks, torch.export, traces, and the operator they record."""

import io
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import gpueinsum as ge

torch = pytest.importorskip("torch", reason="torch is not installed: nothing is compiled")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.func import functional_call, grad, vmap  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from gpueinsum.api.arguments import DEFAULT  # noqa: E402
from gpueinsum.interop.functions import Batch, Einsum, Jvp, Planned, Vjp, from_text, to_text  # noqa: E402
from gpueinsum.torch import einsum as drop_in  # noqa: E402

# torch's own, where it looks at functions that it knows
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(autouse=True)
def _anew():
    torch.manual_seed(0)
    torch._dynamo.reset()


@pytest.fixture
def x():
    return torch.randn(3, 5, requires_grad=True)


@pytest.fixture
def w():
    return torch.randn(5, 7, requires_grad=True)


def compiled(function, **options):
    return torch.compile(function, fullgraph=True, **{"backend": "aot_eager", **options})


ARRAY = np.ones((5, 7), np.float32)
PLAN = ge.einsum_plan("ij,jk->ik", (3, 5), (5, 7))
EXPRESSION = ge.contract_expression("ij,jk->ik", (3, 5), (5, 7))
CONSTANT = ge.contract_expression("ij,jk->ik", (3, 5), torch.ones(5, 7), constants=[1])


def with_autocast(x, w):
    with torch.autocast("cpu", torch.bfloat16):
        return ge.einsum("ij,jk->ik", x, w)


FUNCTIONS = {
    "einsum": lambda x, w: ge.einsum("ij,jk->ik", x, w).sin(),
    "interleaved": lambda x, w: ge.einsum(x, [0, 1], w, [1, 2], [0, 2]),
    "numpy's array": lambda x, w: ge.einsum("ij,jk->ik", x, ARRAY) * w.sum(),
    "number": lambda x, w: ge.einsum(",ij,jk->ik", 2.0, x, w),
    "three": lambda x, w: ge.einsum("ij,jk,lk->il", x, w, w),
    "dtype": lambda x, w: ge.einsum("ij,jk->ik", x, w, dtype=torch.float64),
    "two dtypes": lambda x, w: ge.einsum("ij,jk->ik", x.double(), w),
    "order": lambda x, w: ge.einsum("ij,jk->ik", x, w, order="F"),
    "autocast": with_autocast,
    "a limit": lambda x, w: drop_in("ij,jk->ik", x, w, memory_limit="1GiB"),
    "contract": lambda x, w: ge.contract("ij,jk->ik", x, w),
    "expression": lambda x, w: EXPRESSION(x, w),
    "constant": lambda x, w: CONSTANT(x) + w.sum(),
    "plan": lambda x, w: ge.run_plan(PLAN, x, w),
    "view": lambda x, w: ge.einsum("ij->ji", x).cos() @ w.sum().expand(3, 3),
    "pullback": lambda x, w: ge.vjp("ij,jk->ik", x, w)[1](torch.ones(3, 7))[0] + x,
    "tangent": lambda x, w: ge.jvp("ij,jk->ik", (x, w), (x, None))[1],
    "vmap": lambda x, w: vmap(lambda row: ge.einsum("j,jk->k", row, w))(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_functions_and_their_gradients(name, x, w):
    function = FUNCTIONS[name]
    given, expected = compiled(function)(x, w), function(x, w)
    torch.testing.assert_close(given, expected)
    gradients = [torch.autograd.grad(value.sum(), (x, w)) for value in (given, expected)]
    torch.testing.assert_close(*gradients)


def test_one_program_serves_all_sizes(x, w):
    counter = CompileCounterWithBackend("aot_eager")
    function = compiled(lambda x, w: ge.einsum("ij,jk->ik", x, w).sin(), dynamic=True, backend=counter)
    for rows in (3, 4, 9):
        x = torch.randn(rows, 5, requires_grad=True)
        value = function(x, w)
        torch.testing.assert_close(value, (x @ w).sin())
        value.sum().backward()
    assert counter.frame_count == 1
    squares = compiled(lambda x, y: ge.einsum("ij,ij->ij", x, y), dynamic=True)
    for rows in (3, 1):  # which broadcasts
        y = torch.randn(rows, 5)
        torch.testing.assert_close(squares(torch.randn(3, 5), y).shape, torch.Size((3, 5)))


def test_under_autocast(x, w):
    with torch.autocast("cpu", torch.bfloat16):
        value = compiled(lambda x, w: ge.einsum("ij,jk->ik", x, w))(x, w)
    assert value.dtype is torch.bfloat16
    value.sum().backward()
    assert x.grad.dtype is torch.float32


def test_out_and_views_are_written(x, w):
    out = torch.zeros(3, 7)
    compiled(lambda x, w: ge.einsum("ij,jk->ik", x, w, out=out))(x.detach(), w.detach())
    torch.testing.assert_close(out, (x @ w).detach())
    zeros = torch.zeros(3, 5)
    compiled(lambda x: ge.einsum("ij->ji", x).add_(1))(zeros)
    compiled(lambda x: ge.einsum("ii->i", x[:, :3]).add_(1), dynamic=True)(zeros)
    assert zeros.sum() == 15 + 3


HEADER = Path(sysconfig.get_path("include")) / "Python.h"


@pytest.mark.skipif(not HEADER.exists(), reason="Inductor compiles with the headers of Python, which are missing")
def test_inductor(x, w):
    value = compiled(lambda x, w: ge.einsum("ij,jk->ik", x, w).sin().sum(), backend="inductor")(x, w)
    torch.testing.assert_close(value, (x @ w).sin().sum())
    torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad((x @ w).sin().sum(), x))


def test_what_is_wrong_is_said_while_it_is_compiled(x):
    with pytest.raises(Exception, match="label 'j' is 5 in operand 0 but 3 in operand 1"):
        compiled(lambda x: ge.einsum("ij,jk->ik", x, x))(x)


def test_an_object_that_optimizes_cannot_be_written_down(x, w):
    class Path:
        def __call__(self, *problem):
            return [(0, 1)]

    with pytest.raises(Exception, match="optimize= is an object, which a compiled program cannot hold"):
        make_fx(lambda x, w: ge.einsum("ij,jk->ik", x, w, optimize=Path()))(x, w)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(5, 7))

    def forward(self, x):
        return ge.einsum("ij,jk->ik", x, self.w)


def test_exported_programs_are_saved_and_loaded(x):
    layer = Layer()
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for rows in (2, 3, 9):
        x = torch.randn(rows, 5)
        torch.testing.assert_close(torch.export.load(file).module()(x), layer(x))
        file.seek(0)


def test_functional_calls(x):
    layer = Layer()
    gradient = grad(lambda w: functional_call(layer, {"w": w}, (x,)).sum())(layer.w.detach())
    torch.testing.assert_close(gradient, x.detach().sum(0)[:, None].expand(5, 7))


WEIGHTS = torch.arange(25.0).reshape(5, 5).sin()


def quadratic(row):
    return ge.einsum("i,ij,j->", row, WEIGHTS, row)


def image(row):
    return ge.einsum("i,ij->j", row, WEIGHTS)


DERIVED = {
    "grad": (lambda row: torch.func.grad(quadratic)(row), lambda row: (WEIGHTS + WEIGHTS.T) @ row),
    "vjp": (lambda row: torch.func.vjp(image, row)[1](row)[0], lambda row: WEIGHTS @ row),
    "jvp": (lambda row: torch.func.jvp(image, (row,), (row,))[1], lambda row: row @ WEIGHTS),
    "jacfwd": (lambda row: torch.func.jacfwd(image)(row), lambda row: WEIGHTS.T),
    "jacrev": (lambda row: torch.func.jacrev(image)(row), lambda row: WEIGHTS.T),
    "hessian": (lambda row: torch.func.hessian(quadratic)(row), lambda row: WEIGHTS + WEIGHTS.T),
    "vmap": (lambda row: vmap(image)(torch.stack([row, row]))[1], lambda row: row @ WEIGHTS),
    "vmap of grad": (
        lambda row: vmap(grad(quadratic))(torch.stack([row, row]))[1],
        lambda row: (WEIGHTS + WEIGHTS.T) @ row,
    ),
}


@pytest.mark.parametrize("name", DERIVED)
def test_transforms_within_a_compiled_function(name):
    function, wanted = DERIVED[name]
    row = torch.randn(5)
    torch.testing.assert_close(compiled(function)(row), wanted(row))


def test_forward_mode_through_the_operator():
    row, along = torch.randn(5), torch.randn(5)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(row, along)
        [result] = torch.ops.gpueinsum.run(to_text(Einsum("i,ij->j", 2, DEFAULT)), [dual, WEIGHTS])
        tangent = torch.autograd.forward_ad.unpack_dual(result).tangent
    torch.testing.assert_close(tangent, along @ WEIGHTS)


def test_traces_record_the_operator(x, w):
    def function(x, w):
        return ge.einsum("ij,jk->ik", x, w)

    traced = torch.jit.trace(function, (x, w))
    graph = make_fx(vmap(grad(lambda row: function(row[None], w).sum())))(x)
    assert "gpueinsum.run" in graph.code
    other = torch.randn(3, 5)
    torch.testing.assert_close(traced(other, w), other @ w)
    torch.testing.assert_close(graph(other), w.sum(1).expand(3, 5))


def test_fake_tensors_have_shapes():
    with torch._subclasses.FakeTensorMode():
        assert ge.einsum("ij,jk->ik", torch.randn(3, 5), torch.randn(5, 7)).shape == (3, 7)


PRODUCT = Einsum("ij,jk->ik", 2, DEFAULT)
WRITTEN = {
    "einsum": (PRODUCT, ((3, 5), (5, 7))),
    "sublists": (Einsum((((0, 1), (1, 2)), None), 2, DEFAULT), ((3, 5), (5, 7))),
    "plan": (Planned(PLAN, DEFAULT), ((3, 5), (5, 7))),
    "gradients": (Vjp(PRODUCT, (1, 0)), ((3, 5), (5, 7), (3, 7))),
    "gradient of the gradients": (Vjp(Vjp(PRODUCT, (0,)), (1, 2)), ((3, 5), (5, 7), (3, 7), (3, 5))),
    "tangent": (Jvp(PRODUCT, (1,)), ((3, 5), (5, 7), (5, 7))),
    "batch": (Batch(Vjp(PRODUCT, (0,)), (2,)), ((3, 5), (5, 7), (4, 3, 7))),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_functions_are_read_as_they_were_written(name):
    function, shapes = WRITTEN[name]
    assert to_text(from_text(to_text(function))) == to_text(function)
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    wanted = [result.shape for result in torch.ops.gpueinsum.run(to_text(function), tensors)]
    assert function.shapes(shapes) == list(map(tuple, wanted))
    torch.library.opcheck(torch.ops.gpueinsum.run.default, (to_text(function), tensors))
