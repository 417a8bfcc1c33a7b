"""A stand-in for torch on the simulated device: its tensors' manners (DLPack, streams, allocator), and what we call.

It follows calls in one way only: an operand that requires a gradient gives a result with a `grad_fn`, a function.
"""

import contextlib
import itertools
import sys
import types

import ml_dtypes
import numpy as np

from . import host, streams
from .arrays import FakeArray
from .dlpack import CUDA, NULL_STREAM, Capsule

_BRIDGE = ("tensors", "operator", "nodes", "pullback", "torch")


class dtype:  # noqa: N801  # torch's name
    __module__ = "torch"

    def __init__(self, name):
        self.name, self.numpy = name, np.dtype(getattr(ml_dtypes, name, name))
        self.itemsize = self.numpy.itemsize
        self.is_complex, self.is_floating_point = self.numpy.kind == "c", self.numpy.kind in "fV"

    def __repr__(self):
        return f"torch.{self.name}"


_NAMES = "bool uint8 int16 int32 int64 bfloat16 float16 float32 float64 complex64 complex128"
DTYPES = {kind.numpy: kind for kind in map(dtype, _NAMES.split())}


class device(types.SimpleNamespace):  # noqa: N801  # torch's name
    def __init__(self, type, index=None):
        super().__init__(type=type, index=index)

    def __hash__(self):
        return hash((self.type, self.index))

    def __str__(self):
        return self.type if self.index is None else f"{self.type}:{self.index}"


class TorchStream(streams.Stream):
    """One of torch's: `cuda_stream` is its address."""

    pointers = itertools.count(7001)

    def __init__(self, is_default=False):
        super().__init__(0 if is_default else next(self.pointers), is_late=not is_default)
        self.cuda_stream, self.device_index = self.ptr, 0


class Tensor:
    """torch's on a CUDA device, in its memory; `host` is that as numpy sees it, before conjugation."""

    layout, is_cpu, is_meta = "strided", False, False

    def __init__(self, host, number=0, requires_grad=False, conj=False, neg=False):
        self.host, self.device, self.requires_grad = host, device("cuda", number), requires_grad
        self._conj, self._neg = conj, neg
        self.grad_fn = None

    @property
    def dtype(self):
        return DTYPES[self.host.dtype]

    shape, ndim = property(lambda self: self.host.shape), property(lambda self: self.host.ndim)

    def data_ptr(self):
        return FakeArray.simulated.pointer(self.host) if self.host.size else 0

    def is_conj(self):
        return self._conj

    def is_neg(self):
        return self._neg

    def detach(self):
        return Tensor(self.host, self.device.index, False, self._conj, self._neg)

    def resolve_conj(self):
        return self._copied(np.conj, neg=self._neg) if self._conj else self

    def resolve_neg(self):
        return self._copied(np.negative, conj=self._conj) if self._neg else self

    def _copied(self, function, **bits):
        """By a kernel on the current stream, as torch does."""
        copy = empty(self.host.size, self.dtype, "cuda").host.reshape(self.host.shape)
        STATE.stream.do(lambda: function(self.host, out=copy))
        return Tensor(copy, self.device.index, **bits)

    def untyped_storage(self):
        return FakeArray.simulated.owner_of(self.host)

    def set_(self, storage, offset, shape, strides):
        item = self.dtype.itemsize
        start = storage.first - host.address(storage) + offset * item
        self.host = np.ndarray(shape, self.dtype.numpy, storage, start, [stride * item for stride in strides])
        return self

    def view(self, dtype):
        return Tensor(self.host.view(dtype.numpy), self.device.index, self.requires_grad)

    def permute(self, axes):
        return Tensor(self.host.transpose(axes), self.device.index, self.requires_grad, self._conj, self._neg)

    def to(self, kind):
        return self if kind is self.dtype else Tensor(self.host.astype(kind.numpy), self.device.index)

    def __dlpack_device__(self):
        return CUDA, self.device.index

    def __dlpack__(self, *, stream=-1, max_version=None, dl_device=None, copy=None):
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        if self._conj:
            raise BufferError("Can't export tensors with the conjugate bit set")
        assert not self._neg
        assert self.dtype.name != "bfloat16"  # which older releases of CuPy do not know
        if self.device.index != sys.modules["cupy"].cuda.runtime.getDevice():
            raise BufferError("Can't export tensors on a different CUDA device index.")
        return Capsule(self.host, STATE.stream, stream)


# What is current in torch: its stream, the bytes that its allocator was asked for, whether gradients are followed.
STATE = types.SimpleNamespace()


def empty(size, dtype, device):
    """From torch's allocator, on the device that is current."""
    STATE.allocations.append(size)
    memory = FakeArray.simulated.allocate(size * dtype.itemsize)
    array = np.ndarray((size,), dtype.numpy, memory, memory.first - host.address(memory))
    return Tensor(array, sys.modules["cupy"].cuda.runtime.getDevice())


def from_dlpack(array):
    """torch's: it asks the other library to wait with its work for torch's current stream."""
    _, number = array.__dlpack_device__()
    return Tensor(array.__dlpack__(stream=STATE.stream.ptr or NULL_STREAM, max_version=(1, 0)).memory, number)


class Function:
    """torch.autograd.Function: `grad_fn` of what it gives is its backward pass."""

    @classmethod
    def apply(cls, *arguments):
        ctx = types.SimpleNamespace(saved_tensors=())
        ctx.save_for_backward = lambda *tensors: vars(ctx).update(saved_tensors=tensors)
        results = cls.forward(ctx, *arguments)
        for result in results:
            result.requires_grad, result.grad_fn = True, lambda *given: cls.backward(ctx, *given)
        return results


def modules():
    """torch's modules by their names."""
    vars(STATE).update(stream=TorchStream(is_default=True), allocations=[], follows=True)
    made = {"torch": types.ModuleType("torch")}
    torch = made["torch"]

    def module(name, **members):
        made[f"torch.{name}"] = new = types.ModuleType(f"torch.{name}")
        vars(new).update(members)
        parent, _, last = f"torch.{name}".rpartition(".")
        setattr(made[parent], last, new)

    vars(torch).update({kind.name: kind for kind in DTYPES.values()})
    vars(torch).update(
        **{"Tensor": Tensor, "dtype": dtype, "device": device, "strided": "strided"},
        **{"empty": empty, "from_dlpack": from_dlpack, "Tag": types.SimpleNamespace(pt2_compliant_tag=None)},
        is_grad_enabled=lambda: STATE.follows,
        is_autocast_enabled=lambda kind: False,
        get_float32_matmul_precision=lambda: "highest",
        are_deterministic_algorithms_enabled=lambda: False,
    )
    module("_C")
    module("_C._functorch")
    torch._C._are_functorch_transforms_active = lambda: False
    module("cuda", current_stream=lambda device: STATE.stream)
    module("compiler", is_compiling=lambda: False)
    registers = {name: lambda *_: lambda function: function for name in ("impl", "register_fake", "register_vmap")}
    module("library", define=lambda *_, **__: None, **registers)  # of an operator that nobody calls
    module("_functorch")
    module("_functorch.utils", enable_single_level_autograd_function=None)
    module("nn", Parameter=type("Parameter", (Tensor,), {}))
    module("autograd", Function=Function)
    module("autograd.forward_ad", _current_level=-1)
    module("autograd.function", _SingleLevelFunction=Function)
    return made


@contextlib.contextmanager
def stand_in():
    """The stand-in in `sys.modules`, beside that for CuPy, and the bridge made anew for it; gives its `STATE`."""
    import gpueinsum.interop

    parts = [f"gpueinsum.interop.{name}" for name in _BRIDGE]
    others = {name: each for name, each in sys.modules.items() if name in parts or name.split(".")[0] == "torch"}
    attributes = dict(vars(gpueinsum.interop))
    for name in others:
        del sys.modules[name]
    sys.modules.update(modules())
    try:
        yield STATE
    finally:
        for name in [name for name in sys.modules if name in parts or name.split(".")[0] == "torch"]:
            del sys.modules[name]
        sys.modules.update(others)
        vars(gpueinsum.interop).clear()
        vars(gpueinsum.interop).update(attributes)


def tensor(array, number=0, **how):
    """numpy's array as a tensor on the device, with its strides."""
    return Tensor(FakeArray.simulated.to_device(array), number, **how)
