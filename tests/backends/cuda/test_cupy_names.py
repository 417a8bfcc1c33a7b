"""What this project calls of CuPy, by its source: the installed CuPy has it, and takes such arguments, without a GPU.

Followed are names that begin with CuPy itself (`cupy`, `xp`, `self._cupy`), with what a name was assigned in the same
function, and with what a call of a class of CuPy's gives.
"""

import ast
import contextlib
import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from simulated import arrays
from simulated import cupy as simulated_cupy

import gpueinsum

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: its names are not looked up")
if cupy.__version__ == simulated_cupy.VERSION:
    pytest.skip("this is the stand-in, and not CuPy", allow_module_level=True)

ROOT, PACKAGE = Path(__file__).parents[3], Path(gpueinsum.__file__).parent  # which may be installed elsewhere
FILES = {
    str(path.relative_to(folder.parent)): path
    for folder in (PACKAGE, ROOT / "benchmarks", ROOT / "tests")
    for path in sorted(folder.rglob("*.py"))
    if "simulated" not in path.parts
}
NAMED = {"cupy": cupy, "_cupy": cupy, "xp": cupy}  # variables and attributes
GIVES = {cupy.cuda.get_current_stream: cupy.cuda.Stream, cupy.get_default_memory_pool: cupy.cuda.MemoryPool}


class Instance:
    """What a call of a class gives."""

    def __init__(self, kind):
        self.kind = kind

    def __eq__(self, other):
        return isinstance(other, Instance) and self.kind is other.kind

    __hash__ = None


class Method:
    """One of an instance's."""

    def __init__(self, function):
        self.function = function


class Reader(ast.NodeVisitor):
    """The faults of one module's use of CuPy, and how many of its names were checked."""

    def __init__(self, own=()):
        self.faults, self.checked = [], 0
        self.own = own  # names of the stand-in, in tests that look into it, and into its streams
        self.known = dict(NAMED)

    def visit_FunctionDef(self, node):
        outside, self.known = self.known, dict(self.known)
        assigned = {}
        for name, value in _assignments(node):
            assigned.setdefault(name, []).append(value)
        for name, values in assigned.items():
            found = [self.value(value) for value in values]
            self.known[name] = found[0] if all(each is not None and each == found[0] for each in found) else None
        self.generic_visit(node)
        self.known = outside

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Attribute(self, node):
        self.generic_visit(node)
        owner = self.value(node.value)
        if owner is None or isinstance(node.ctx, ast.Store):
            return
        self.checked += 1
        if not _has(owner, node.attr) and not (owner is cupy and node.attr in self.own):
            self.faults.append(f"line {node.lineno}: {ast.unparse(node)}: CuPy {cupy.__version__} has no such name")

    def visit_Call(self, node):
        self.generic_visit(node)
        function, arguments = self.value(node.func), node.args
        if isinstance(function, Method):
            function, arguments = function.function, [None, *arguments]
        signature = None if isinstance(function, Instance | None) else _signature(function)
        if signature is None or any(isinstance(each, ast.Starred) for each in node.args):
            return
        if any(each.arg is None for each in node.keywords):
            return
        try:
            signature.bind(*arguments, **{each.arg: each.value for each in node.keywords})
        except TypeError as error:
            self.faults.append(f"line {node.lineno}: {ast.unparse(node)}: {error}")

    def visit_ImportFrom(self, node):
        if node.module and node.module.split(".")[0] in ("cupy", "cupyx"):
            try:
                module = import_module(node.module)
            except ModuleNotFoundError as error:
                self.faults.append(f"line {node.lineno}: {error}")
                return
            for alias in node.names:
                self.checked += 1
                if not _has(module, alias.name) and find_spec(f"{node.module}.{alias.name}") is None:
                    self.faults.append(f"line {node.lineno}: {node.module} has no {alias.name}")

    def value(self, node):
        """What an expression is of CuPy's; None if it is nothing of it, or not known."""
        match node:
            case ast.Name(id=name):
                return self.known.get(name)
            case ast.Attribute(value=owner, attr=name):
                owner = self.value(owner)
                if owner is None:
                    return NAMED.get(name)
                if isinstance(owner, Instance):
                    found = getattr(owner.kind, name, None)
                    return Method(found) if callable(found) else None
                return None if isinstance(owner, Method) else getattr(owner, name, None)
            case ast.Call(func=function):
                function = self.value(function)
                if isinstance(function, Method):
                    function = function.function
                if isinstance(function, Instance | None) or self.own:
                    return None
                kind = function if inspect.isclass(function) else GIVES.get(function)
                return Instance(kind) if kind is not None and kind.__module__.startswith("cupy") else None
        return None


def _assignments(function):
    """The names that a function assigns, and what; None for what is not one plain expression."""
    for node in ast.walk(function):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.withitem(context_expr=value, optional_vars=ast.Name(id=name))
            ):
                yield name, value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                yield from ((name.id, value) for name, value in zip(names, values, strict=True) if hasattr(name, "id"))
            case ast.arg(arg=name) if name not in NAMED:
                yield name, None
            case ast.For(target=target) | ast.comprehension(target=target) | ast.Assign(targets=[target, *_]):
                yield from ((each.id, None) for each in ast.walk(target) if isinstance(each, ast.Name))


def _signature(function):
    """What a function takes, by itself or, if it is compiled, by the first line of its documentation; else None."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        first = (function.__doc__ or "").strip().partition("\n")[0].replace("\\*", "*")
        documented = re.fullmatch(r"[\w.]+\(([^\[\]]*)\)( -> .*)?", first)
    if documented is None:
        return None
    taken = [each.partition("=")[::2] for each in documented[1].split(", ") if each]
    names = ", ".join(name.split()[-1] + ("=None" if default else "") for name, default in taken)  # without C's types
    return inspect.signature(eval(f"lambda {names}: None"))


def _has(owner, name):
    kind = owner.kind if isinstance(owner, Instance) else owner
    return hasattr(kind, name) or (inspect.isclass(kind) and f"~{kind.__name__}.{name} " in (kind.__doc__ or ""))


def read(text):
    reader = Reader(vars(simulated_cupy.modules()["cupy"]) if "simulated.cupy import" in text else ())
    reader.visit(ast.parse(text))
    return reader


@pytest.mark.parametrize("name", FILES)
def test_cupy_has_what_is_called_of_it(name):
    assert not read(FILES[name].read_text(encoding="utf-8")).faults


def test_the_names_that_are_checked_are_many():
    counts = {name: read(path.read_text(encoding="utf-8")).checked for name, path in FILES.items()}
    assert sum(count for path, count in counts.items() if path.startswith("tests/backends/cuda/test_gpu")) > 100
    assert counts["gpueinsum/backends/cuda/runtime.py"] > 20
    assert counts["benchmarks/devices.py"] > 10


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cupy.linalg.multi_dot(x)", "no such name"),
        ("self._cupy.cuda.Streams()", "no such name"),
        ("cupy.empty((2,), dtyp=float)", "unexpected keyword argument 'dtyp'"),
        ("def f():\n    stream = cupy.cuda.Stream()\n    stream.wait()", "no such name"),
        ("def f():\n    with cupy.cuda.Stream() as stream:\n        stream.finish()", "no such name"),
        ("def f():\n    pool, other = cupy.get_default_memory_pool(), 0\n    pool.peak_bytes()", "no such name"),
        ("cupy.cuda.Device().memory", "no such name"),
        ("cupy.cuda.runtime.memcpyAsync(out, source, 3, 3)", "missing a required argument: 'stream'"),
        ("cupy.cuda.Stream(non_blocking=True).wait_event()", "missing a required argument: 'event'"),
        ("cupy.RawKernel(text, name, option=())", "unexpected keyword argument 'option'"),
        ("from cupy.cuda import runtim", "has no runtim"),
        ("from cupy.cudo import Stream", "No module named 'cupy.cudo'"),
    ],
)
def test_what_cupy_lacks_is_found(text, fault):
    [found] = read(text).faults
    assert fault in found


def test_what_cupy_has_is_no_fault():
    assert not read("def f():\n    stream = cupy.cuda.Stream()\n    stream.ptr\n    cupy.asarray(x, order='C')").faults
    assert not read("def f(stream):\n    stream.anything").faults


# ---- The stand-in


def test_the_stand_in_has_the_names_of_this_cupy():
    if not cupy.__version__.startswith("14.2."):
        pytest.skip("the stand-in is for CuPy 14.2")
    for owner, names in arrays.NAMES.items():
        missing = [name for name in names if not hasattr(_at(owner), name)]
        assert not missing
    assert {name for name in dir(cupy.linalg) if name[0] != "_"} == arrays.NAMES["cupy.linalg"]


def _at(dotted):
    place = cupy
    for part in dotted.split(".")[1:]:
        place = getattr(place, part)
    return place


@pytest.mark.parametrize(
    ("dotted", "stands_in"),
    [
        ("cupy.cuda.Stream", simulated_cupy.CupyStream),
        ("cupy.cuda.Event", simulated_cupy.FakeEvent),
        ("cupy.cuda.Device", simulated_cupy.FakeDevice),
        ("cupy.cuda.MemoryHook", arrays.MemoryHook),
        ("cupy.cuda.MemoryPool", arrays.Pool),
        ("cupy.cuda.MemoryPointer", arrays.Pointer),
    ],
)
def test_the_stand_ins_calls_are_cupys(dotted, stands_in):
    kind = _at(dotted)
    for name, function in vars(stands_in).items():
        if name[0] != "_" and callable(function) and hasattr(kind, name):
            signature = _signature(getattr(kind, name))
            theirs, ours = (list(each.parameters.values())[1:] for each in (signature, inspect.signature(function)))
            assert [(each.name, each.kind) for each in ours] == [(each.name, each.kind) for each in theirs], name


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("CIntptr", 2**63 - 1, None),
        ("CIntptr", 2**63, OverflowError),
        ("CIntptr", np.int64(5), TypeError),
        ("CIntptr", 1.0, TypeError),
        ("CNumpyArray", np.zeros(1, "i8,f4"), None),
        ("CNumpyArray", 5, AttributeError),
    ],
)
def test_the_stand_ins_arguments_of_kernels_are_cupys(name, value, error):
    for kind in getattr(cupy.cuda.function, name), getattr(simulated_cupy, name):
        with pytest.raises(error) if error else contextlib.nullcontext():
            kind(value)
