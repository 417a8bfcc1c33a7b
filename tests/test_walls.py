"""Which folder of the package may import which: arrows point downward only."""

import ast
from pathlib import Path

import gpueinsum

# From the top of the house; files beside the rooms are below all of them, but for those that users import.
FRONTS = ["torch", "jax", "testing"]
ROOMS = ["tools", "interop", "distributed", "api", "backends", "schedule", "planning", "costs", "language"]
PACKAGE = Path(gpueinsum.__file__).parent


def arrows(text):
    """The modules of the package that a source text imports, and whether it does so in a function or for types."""
    tree = ast.parse(text)
    later = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.If)]
    lazy = {id(child) for node in later for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpueinsum."):
            for name in node.names:  # of a module in a folder, or of what a module has
                yield tuple(f"{node.module}.{name.name}".split(".")[1:]), id(node) in lazy
        elif isinstance(node, ast.Import) and any(name.name == "gpueinsum" for name in node.names):
            yield ("api",), id(node) in lazy  # which most of its names are of


def height(module):
    if module[0] in FRONTS:
        return len(ROOMS)
    return ROOMS[::-1].index(module[0]) if module[0] in ROOMS else -1


SOURCES = {path.relative_to(PACKAGE).with_suffix("").parts: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
ARROWS = [
    (own, *arrow) for own, text in SOURCES.items() if not own[-1].startswith("__") or own[1:] for arrow in arrows(text)
]


def test_arrows_point_downward():
    assert {own[0] for own in SOURCES if own[1:]} <= set(ROOMS)
    up = [(own, other, is_lazy) for own, other, is_lazy in ARROWS if height(other) > height(own)]
    assert [arrow for arrow in up if not arrow[2]] == []
    assert {own for own, _, _ in up} == {("language", "plan"), ("api", "libraries"), ("api", "einsum")}


def test_backends_do_not_know_each_other():
    inside = [(own[1], other[1], own, other) for own, other, _ in ARROWS if own[0] == other[0] == "backends"]
    kinds = {"cpu", "cuda"}
    assert [arrow for arrow in inside if arrow[0] in kinds and arrow[1] in {*kinds, "select"} - {arrow[0]}] == []
    assert {arrow[2][-1] for arrow in inside if arrow[1] in kinds and arrow[0] not in kinds} == {"select", "footprint"}


def test_an_arrow_in_a_function_is_told_from_others():
    text = "from gpueinsum.api import x\ndef f():\n    from gpueinsum.costs.counts import y\nimport numpy"
    assert list(arrows(text)) == [(("api", "x"), False), (("costs", "counts", "y"), True)]
