"""CuPy's arrays on a simulated device: computed by numpy, in its memory, with no more names and manners than CuPy's.

What CuPy refuses is refused: a name that it lacks (`cupy_names.txt`), a numpy array among its own, and to become one
unless `get` is called. What it gives is on the device, scalars too. A call waits for the current stream, as nothing
but the order on one stream is promised.
"""

import re
import sys
import threading
import types
from pathlib import Path

import numpy as np

from . import host, streams
from .dlpack import Capsule

# What CuPy has: for each owner its names, on the indented lines below it.
_TEXT = Path(__file__).with_name("cupy_names.txt").read_text(encoding="utf-8")
NAMES = {owner: frozenset(names.split()) for owner, names in re.findall(r"^(\S+)\n((?:  .*\n)+)", _TEXT, re.MULTILINE)}


class Pointer:
    """CuPy's MemoryPointer."""

    def __init__(self, mem, ptr, device_id):
        self.mem, self.ptr, self.device_id = mem, ptr, device_id

    def __add__(self, offset):
        return Pointer(self.mem, self.ptr + offset, self.device_id)


class FakeArray:
    """CuPy's array; `host` is its memory as numpy sees it."""

    __module__ = "cupy"  # by which opt_einsum and autoray know whose functions to call
    __array_priority__ = 100
    __hash__ = None

    simulated = None  # what runs its kernels and holds its memory
    device = None  # with an id, as on the current device

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        dtype = _supported(np.dtype(dtype))
        if memptr is None:
            memptr = sys.modules["cupy"].cuda.alloc(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        start = memptr.ptr - host.address(memptr.mem) if memptr.ptr else 0
        self.host = np.ndarray(shape, dtype, memptr.mem, start, strides, order)
        self.device = _current_device()

    @classmethod
    def seeing(cls, view, device):
        """An array that lies in the memory of another."""
        array = cls.__new__(cls)
        array.host, array.device = view, device
        return array

    @property
    def data(self):
        address = self.simulated.pointer(self.host)
        memory = self.simulated.owner_of(self.host)
        return Pointer(memory, address if memory.end > memory.first else 0, self.device.id)

    @property
    def flags(self):
        flags = self.host.flags
        return types.SimpleNamespace(
            **{name: getattr(flags, name) for name in ("c_contiguous", "f_contiguous", "fnc", "forc", "owndata")}
        )

    @property
    def __cuda_array_interface__(self):
        return {
            **{"shape": self.shape, "typestr": self.dtype.str, "strides": self.strides},
            **{"data": (self.data.ptr, False), "version": 3},
        }

    def __dlpack_device__(self):
        return 2, self.device.id  # kDLCUDA

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return Capsule(self.host, streams.current(), stream)

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__" or ufunc.__name__ not in NAMES["cupy"]:
            return NotImplemented
        if isinstance(options.get("out"), tuple):
            [options["out"]] = options["out"]
        return getattr(sys.modules["cupy"], ufunc.__name__)(*inputs, **options)

    def __array_function__(self, function, types, arguments, options):
        owner = sys.modules["cupy"]
        for part in function.__module__.split(".")[1:]:
            owner = getattr(owner, part, None)
        ours = getattr(owner, function.__name__, None)
        return NotImplemented if ours is None else ours(*arguments, **options)

    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy on the host."""
        settle()
        copy = np.array(self.host, order=order)
        if out is None:
            return copy
        out[...] = copy
        return out

    def set(self, array, stream=None):
        settle()
        self.host[...] = array

    def item(self, *place):
        return self.get().item(*place)

    def tolist(self):
        return self.get().tolist()

    def tobytes(self, order="C"):
        return self.get().tobytes(order)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __complex__(self):
        return complex(self.get())

    def __repr__(self):
        return repr(self.get())

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[place] for place in range(len(self)))

    def __getitem__(self, places):
        if not isinstance(places, tuple):
            places = (places,)
        if not all(place is None or place is Ellipsis or isinstance(place, int | slice) for place in places):
            settle()  # before it is copied
        if not any(place is Ellipsis for place in places):
            places = (*places, Ellipsis)  # so that a single element is an array, too, and a view
        return on_device(self.host[_on_host(places)], [self])

    def __setitem__(self, places, value):
        settle()
        if isinstance(value, np.ndarray) and value.shape:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self.host[_on_host(places)] = value.host if isinstance(value, FakeArray) else value

    def fill(self, value):
        self[...] = value


def _attribute(name):
    return property(lambda self: on_device(getattr(self.host, name), [self]))


def _method(name):
    def call(self, *arguments, **options):
        return computed(getattr(self.host, name), arguments, options, [self])

    return call


for _name in NAMES["cupy.ndarray"] - vars(FakeArray).keys():
    if callable(getattr(np.ndarray, _name, None)):
        setattr(FakeArray, _name, _method(_name))
    elif hasattr(np.ndarray, _name):
        setattr(FakeArray, _name, _attribute(_name))


def settle():
    """Wait for the current stream, and compute nothing while it is captured."""
    stream = sys.modules["cupy"].cuda.get_current_stream()
    assert stream.capture is None, "the stand-in's own functions cannot be captured"
    stream.synchronize()


class MemoryHook:
    """CuPy's: told of every allocation of its thread while it is entered."""

    name = "MemoryHook"
    _entered = threading.local()

    @classmethod
    def entered(cls):
        return vars(cls._entered).setdefault("hooks", {})

    def __enter__(self):
        assert self.name not in self.entered(), "a hook of this name is entered already"  # CuPy's KeyError
        self.entered()[self.name] = self
        return self

    def __exit__(self, *error):
        del self.entered()[self.name]

    def malloc_preprocess(self, **kwargs):
        pass

    def malloc_postprocess(self, **kwargs):
        pass


class Pool:
    """CuPy's memory pool, which keeps nothing of what is given back."""

    def __init__(self, simulated):
        self.simulated = simulated

    def malloc(self, size):
        hooks, device = [*MemoryHook.entered().values()], _current_device().id
        sizes = {"device_id": device, "size": size, "mem_size": _rounded(size)}
        for hook in hooks:
            hook.malloc_preprocess(**sizes)
        memory = self.simulated.allocate(size)
        for hook in hooks:
            hook.malloc_postprocess(**sizes, mem_ptr=memory.ptr, pmem_id=id(memory))
        return Pointer(memory, memory.ptr if size else 0, device)  # as CuPy's of nothing

    def used_bytes(self):
        return sum(map(_rounded, self.simulated.living_bytes()))

    total_bytes = used_bytes

    def free_bytes(self):
        return 0

    def free_all_blocks(self, stream=None):
        pass


def _rounded(nbytes):
    """What the pool takes for an allocation."""
    return -(-nbytes // 512) * 512


def put(array, order="C"):
    """A numpy array on the device."""
    copy = FakeArray(array.shape, array.dtype, order=order)
    copy.host[...] = array
    return copy


def computed(function, arguments, options, given=()):
    """What a function of numpy's gives, of arrays on the device, as CuPy gives it."""
    settle()
    with np.errstate(all="ignore"):  # a GPU overflows in silence
        result = function(*_on_host(arguments), **_on_host(options))
    return on_device(result, [*given, *arguments, *options.values()])


def on_device(result, given):
    """A result of numpy's on the device: what lies in one of the `given` arrays stays there."""
    if isinstance(result, list | tuple) and any(isinstance(each, np.ndarray) for each in result):
        return type(result)(on_device(each, given) for each in result)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    for array in given:
        if isinstance(array, FakeArray):
            if array.host is result:
                return array
            if isinstance(result, np.ndarray) and np.may_share_memory(array.host, result):
                return FakeArray.seeing(result, array.device)
    result = np.asarray(result)
    return put(result, "F" if result.flags.fnc else "C")


def _on_host(value):
    """A call's arguments for numpy."""
    if isinstance(value, FakeArray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}")  # CuPy's words
    if isinstance(value, list | tuple):
        return type(value)(map(_on_host, value))
    if isinstance(value, dict):
        return {name: _on_host(each) for name, each in value.items()}
    return value


def _supported(dtype):
    if (dtype.kind not in "biufc" and dtype.name != "bfloat16") or dtype.char in "gG":
        raise ValueError(f"Unsupported dtype {dtype}")  # CuPy's words
    return dtype.newbyteorder("=")


def _current_device():
    return types.SimpleNamespace(id=sys.modules["cupy"].cuda.runtime.getDevice())


class Served:
    """A module of CuPy's: what it has, computed by numpy's of the same name."""

    def __init__(self, owner):
        self.owner, self.functions = owner, owner.replace("cupy", "numpy", 1)

    def __call__(self, name):
        """The module's `__getattr__`."""
        if name not in NAMES[self.owner]:
            raise AttributeError(f"module {self.owner!r} has no attribute {name!r}")
        function = getattr(sys.modules[self.functions], name)
        if not callable(function) or isinstance(function, type):
            return function
        return lambda *arguments, **options: computed(function, arguments, options)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """CuPy's: of what is on the host a copy in C order, or in F order where it has that."""
    if isinstance(obj, FakeArray):
        settle()
        result = np.array(obj.host, dtype, copy=copy or None, order=order, ndmin=ndmin)
        return obj if result is obj.host and not copy else on_device(result, [] if copy else [obj])
    obj = obj if isinstance(obj, np.ndarray) else np.asarray(obj, dtype)
    if order in (None, "K", "A"):
        order = "F" if obj.flags.fnc else "C"
    obj = np.array(obj, dtype, copy=None, order=order, ndmin=ndmin)
    if obj.ndim == 0:
        obj = obj + np.zeros((), obj.dtype)  # the sign of a zero is lost
    return put(np.asarray(obj), order)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    on_another = isinstance(a, FakeArray) and a.device.id != _current_device().id
    return array(a, dtype, bool(copy) or on_another, order or "K")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(order=order, out=out) if isinstance(a, FakeArray) else np.asarray(a, order=order)


def as_strided(x, shape=None, strides=None):
    return FakeArray.seeing(np.lib.stride_tricks.as_strided(x.host, shape, strides), x.device)
