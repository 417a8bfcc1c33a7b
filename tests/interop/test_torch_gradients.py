"""torch's autograd and torch.func through our calls: values of gradients, what is kept, threads, AMP."""

import threading

import pytest

import gpueinsum as ge

torch = pytest.importorskip("torch", reason="torch is not installed: no gradients of tensors are taken")

from torch.autograd import forward_ad, functional, gradcheck, gradgradcheck  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from gpueinsum.torch import einsum as drop_in  # noqa: E402

# torch's own, at the first use of its rules for forward-mode derivatives
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def leaves(*shapes, dtype=torch.float64):
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def mixed():
    return [*leaves((2, 3), dtype=torch.complex128), *leaves((3, 4))]


CHAIN = (2, 3), (3, 4), (4, 2)
PLAN = ge.einsum_plan("ij,jk->ik", (2, 3), (3, 4))
CHECKED = {
    "chain": (lambda x, y, z: ge.einsum("ij,jk,kl->il", x, y, z), lambda: leaves(*CHAIN)),
    "complex and real": (lambda x, y: ge.einsum("ij,jk->ik", x, y), mixed),
    "the same twice": (lambda x: ge.einsum("ij,jk->ik", x, x), lambda: leaves((3, 3))),
    "trace and diagonal": (lambda x, y: ge.einsum("ii,ij->j", x, y), lambda: leaves((3, 3), (3, 2))),
    "diagonal alone": (lambda x: ge.einsum("iij->ji", x), lambda: leaves((3, 3, 2))),
    "embedding": (lambda x: ge.einsum("ij->iij", x), lambda: leaves((3, 2))),
    "broadcast": (lambda x, y: ge.einsum("ij,ij->j", x, y), lambda: leaves((3, 1), (1, 4))),
    "expression": (ge.contract_expression("ij,jk->ik", (2, 3), (3, 4)), lambda: leaves((2, 3), (3, 4))),
    "constant": (
        ge.contract_expression("ij,jk->ik", (2, 3), torch.ones(3, 4, dtype=torch.float64), constants=[1]),
        lambda: leaves((2, 3)),
    ),
    "two outputs": (lambda x, y, g: ge.run_plan(PLAN.vjp(), x, y, g), lambda: leaves((2, 3), (3, 4), (2, 4))),
    "a limit": (
        lambda x, y, z: drop_in("ij,jk,kl->il", x, y, z, memory_limit=700),
        lambda: leaves(*CHAIN),
    ),
    "pullback": (lambda x, y, g: ge.vjp("ij,jk->ik", x, y)[1](g), lambda: leaves((2, 3), (3, 4), (2, 4))),
    "pullback of a batch": (lambda x, y, g: ge.vjp("ij,jk->ik", x, y)[1](g), lambda: leaves((2, 3), (3, 4), (5, 2, 4))),
    "tangent": (
        lambda x, y, t: ge.jvp("ij,jk->ik", (x, y), (t, None))[1],
        lambda: leaves((2, 3), (3, 4), (2, 3)),
    ),
}


@pytest.mark.parametrize("name", CHECKED)
def test_first_derivatives_are_those_of_differences(name):
    function, make = CHECKED[name]
    batches = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(function, make(), fast_mode=True, check_forward_ad=True, **batches)


@pytest.mark.parametrize("name", CHECKED)
def test_second_derivatives_are_those_of_differences(name):
    function, make = CHECKED[name]
    assert gradgradcheck(function, make(), fast_mode=True, check_batched_grad=True)
    assert gradgradcheck(function, make(), fast_mode=True, check_fwd_over_rev=True)


def square(x, w, einsum=ge.einsum):
    return einsum("ij,jk->ik", x, w).square().sum()


def theirs(x, w):
    return square(x, w, torch.einsum)


X, W = torch.randn(3, 5, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
MANY = torch.randn(4, 3, 5, dtype=torch.float64)
TRANSFORMED = {
    "grad": (lambda f: grad(f, argnums=1)(X, W)),
    "grad of grad": (lambda f: grad(lambda x: grad(f)(x, W).square().sum())(X)),
    "vjp": (lambda f: vjp(f, X, W)[1](torch.tensor(2.0, dtype=torch.float64))[0]),
    "jvp": (lambda f: jvp(f, (X, W), (X, 2 * W))[1]),
    "jvp in one": (lambda f: jvp(lambda x: f(x, W), (X,), (X,))[1]),
    "jvp of grad": (lambda f: jvp(lambda x: grad(f)(x, W), (X,), (X,))[1]),
    "vmap": (lambda f: vmap(f, in_dims=(0, None))(MANY, W)),
    "vmap along another axis": (lambda f: vmap(f, in_dims=(1, None))(MANY.movedim(0, 1), W)),
    "vmap of both": (lambda f: vmap(f)(MANY, W.expand(4, 5, 7))),
    "vmap of vmap": (lambda f: vmap(vmap(f, in_dims=(0, None)), in_dims=(None, 0))(MANY, W[None])),
    "vmap of grad": (lambda f: vmap(grad(f, argnums=(0, 1)), in_dims=(0, None))(MANY, W)),
    "grad of vmap": (lambda f: grad(lambda w: vmap(f, in_dims=(0, None))(MANY, w).sum())(W)),
    "jacrev": (lambda f: jacrev(grad(f))(X, W)),
    "jacfwd": (lambda f: jacfwd(grad(f))(X, W)),
    "hessian": (lambda f: hessian(f)(X, W)),
    "autograd's jacobian": (lambda f: functional.jacobian(grad(f), (X, W))),
    "autograd's hessian at once": (lambda f: functional.hessian(lambda x: f(x, W), X, vectorize=True)),
    "autograd's hessian forward": (
        lambda f: functional.hessian(lambda x: f(x, W), X, vectorize=True, outer_jacobian_strategy="forward-mode")
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed_calls_are_those_of_torch(name):
    transform = TRANSFORMED[name]
    torch.testing.assert_close(transform(square), transform(theirs))


@pytest.fixture
def runs(monkeypatch):
    """The equations of the plans that are run without a follower."""
    import gpueinsum.interop.functions as functions

    seen, bind = [], functions.bind_with_own_outputs
    functions.call_of.cache_clear()
    monkeypatch.setattr(
        functions, "bind_with_own_outputs", lambda plan, *rest: seen.append(plan.equation) or bind(plan, *rest)
    )
    yield seen
    functions.call_of.cache_clear()


def test_a_batch_is_one_plan(runs):
    vmap(lambda x: ge.einsum("ij,jk->ik", x, W))(MANY)
    assert runs == ["Aij,jk->Aik"]


def test_only_what_moves_is_computed(runs):
    jvp(lambda x: ge.einsum("ij,jk->ik", x, W), (X,), (X,))
    assert runs == ["ij,jk->ik", "ij,jk,ij->ik"]
    runs.clear()
    with forward_ad.dual_level():
        ge.einsum("ik,kj->ij", X, forward_ad.make_dual(W, W))
    assert runs == ["ik,kj->ij", "ik,kj,kj->ij"]


def test_only_gradients_that_are_needed_are_computed():
    x, w = X.clone().requires_grad_(), W.clone()
    result = ge.einsum("ij,jk->ik", x, w)
    assert [saved.data_ptr() for saved in result.grad_fn.saved_tensors] == [w.data_ptr()]
    result.sum().backward()
    torch.testing.assert_close(x.grad, w.sum(1).expand(3, 5))


def saved_bytes(call):
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x.nbytes) or x, lambda x: x):
        result = call()
    return sum(seen), result


def test_a_limit_of_memory_keeps_less_and_changes_no_gradient():
    equation = "ia,ja,ka,la->ijkl"  # Khatri-Rao products are larger than their factors
    path = [(0, 1)] * 3
    x = leaves((8, 6), (9, 6), (7, 6), (5, 6))
    all_kept, value = saved_bytes(lambda: drop_in(equation, *x, optimize=path))
    operands = sum(each.nbytes for each in x)
    limit = ge.einsum_plan(equation, *x, optimize=path).vjp().peak_bytes() + value.nbytes
    kept, limited = saved_bytes(lambda: drop_in(equation, *x, optimize=path, memory_limit=limit))
    assert operands <= kept < all_kept
    torch.testing.assert_close(limited, value, rtol=0, atol=0)
    wanted = torch.autograd.grad(value.square().sum(), x)
    torch.testing.assert_close(torch.autograd.grad(limited.square().sum(), x), wanted)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoints_of_torch(use_reentrant):
    x, y, z = leaves(*CHAIN)

    def layer(x):
        return ge.einsum("ij,jk,kl->il", x, y, z).sin()

    kept, value = saved_bytes(lambda: checkpoint(layer, x, use_reentrant=use_reentrant))
    assert kept <= x.nbytes
    wanted = torch.autograd.grad(layer(x).sum(), (x, y, z))
    value.sum().backward()
    torch.testing.assert_close([each.grad for each in (x, y, z)], list(wanted))


def test_what_is_saved_may_go_elsewhere():
    x, w = leaves((3, 5), (5, 7))
    with torch.autograd.graph.save_on_cpu():
        value = ge.einsum("ij,jk->ik", x, w)
    value.sum().backward()
    torch.testing.assert_close(x.grad, w.sum(1).expand(3, 5))


def test_what_changes_after_the_forward_pass_is_noticed():
    x, w = X.clone().requires_grad_(), W.clone()
    value = ge.einsum("ij,jk->ik", x, w).sum()
    with torch.no_grad():
        x.add_(1)  # on which its own gradient does not depend
    value.backward(retain_graph=True)
    w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_a_graph_is_freed_after_its_backward_pass():
    x, w = leaves((3, 5), (5, 7))
    value = ge.einsum("ij,jk->ik", x, w).sum()
    value.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        value.backward()


def test_without_gradients_nothing_is_followed():
    x, w = leaves((3, 5), (5, 7))
    with torch.no_grad():
        assert not ge.einsum("ij,jk->ik", x, w).requires_grad
    with torch.inference_mode():
        assert ge.einsum("ij,jk->ik", x, w).is_inference()
    assert not ge.einsum("ij,jk->ik", x.detach(), w.detach()).requires_grad


def test_gradients_have_the_dtypes_of_their_operands():
    half, single = torch.randn(3, 5).half().requires_grad_(), torch.randn(5, 7, requires_grad=True)
    value = ge.einsum("ij,jk->ik", half, single)
    value.sum().backward()
    assert (value.dtype, half.grad.dtype, single.grad.dtype) == (torch.float32, torch.float16, torch.float32)
    real, z = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, dtype=torch.complex64)
    ge.einsum("ij,jk->ik", real, z).abs().sum().backward()
    [wanted] = torch.autograd.grad(torch.einsum("ij,jk->ik", real.to(z.dtype), z).abs().sum(), real)
    torch.testing.assert_close(real.grad, wanted)
    assert [x.dtype for x in ge.vjp("ij,jk->ik", real, z)[1](z[:3])] == [torch.float32, torch.complex64]
    counts = torch.arange(5)
    [gradient] = torch.autograd.grad(ge.einsum("ij,j->", real, counts), real)
    assert torch.equal(gradient, counts.float().expand(3, 5))


def test_autocast_reduces_what_torchs_would():
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        value, wanted = ge.einsum("ij,jk->ik", x, w), torch.einsum("ij,jk->ik", x, w)
        assert value.dtype is wanted.dtype is torch.bfloat16
        torch.testing.assert_close(value, wanted)
        assert ge.einsum("ij,jk->ik", x.double(), w.double()).dtype is torch.float64
        assert ge.einsum("i,i->", torch.arange(3), torch.arange(3)).dtype is torch.int64
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            assert ge.einsum("ij,jk->ik", x, w).dtype is torch.float32
    value.sum().backward()
    assert x.grad.dtype is torch.float32
    torch.testing.assert_close(x.grad, w.sum(1).expand(3, 5), rtol=0.05, atol=0.05)


def test_backward_passes_run_in_many_threads():
    x, w = leaves((31, 37), (37, 41))
    expected = torch.autograd.grad(square(x, w), (x, w))
    errors = []

    def train():
        for _ in range(20):
            got = torch.autograd.grad(square(x, w), (x, w))
            if not all(map(torch.allclose, got, expected)):
                errors.append(got)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
