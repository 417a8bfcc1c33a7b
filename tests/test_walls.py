"""Which folder of the package may import which: arrows point downward only."""

import ast
from pathlib import Path

import gpueinsum

# From the top of the house.
ROOMS = ["tools", "interop", "distributed", "api", "backends", "schedule", "planning", "costs", "language"]
PACKAGE = Path(gpueinsum.__file__).parent


def imports(path):
    """The modules of the package that a file imports, and whether it does so inside a function or for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.If)]
    lazy = {id(child) for node in later for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gpueinsum":
            folders = [f"{node.module}.{name.name}" for name in node.names]
            modules = [name for name in folders if module_exists(name)] or [node.module]
            yield from ((tuple(name.split(".")[1:]), id(node) in lazy) for name in modules)


def module_exists(name):
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def arrows():
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).with_suffix("").parts
        if len(own) > 1:
            yield from ((own, other, is_lazy) for other, is_lazy in imports(path))


def height(module):
    """Of a room in the house; files beside the rooms are below all of them."""
    return ROOMS[::-1].index(module[0]) if module[0] in ROOMS else -1


def test_arrows_point_downward():
    assert {own[0] for own, _, _ in arrows()} <= set(ROOMS)
    up = {(own, other) for own, other, is_lazy in arrows() if other and height(other) > height(own) and not is_lazy}
    assert not up
    lazily_up = {own for own, other, _ in arrows() if other and height(other) > height(own)}
    assert lazily_up == {("language", "plan")}


def test_backends_do_not_know_each_other():
    kinds = {"cpu", "cuda"}
    between = {(own, other) for own, other, _ in arrows() if own[0] == other[:1] == "backends" or own[0] == "backends"}
    for own, other in between:
        if other[:1] == ("backends",) and own[1] in kinds:
            assert other[1] not in {*kinds, "select"} - {own[1]}, (own, other)


def test_files_beside_the_rooms_import_nothing_of_them():
    for path in PACKAGE.glob("*.py"):
        if not path.name.startswith("__"):
            assert all(height(other) == -1 for other, _ in imports(path)), path.name
