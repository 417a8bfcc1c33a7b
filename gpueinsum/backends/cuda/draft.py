"""From work on memories by number to a program: every memory gets its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gpueinsum.backends.cuda.program import Address, Output, Product, Program, Span, Work
from gpueinsum.backends.cuda.workspace import Lifetime, offsets


@dataclass(frozen=True, slots=True)
class Draft:
    """Work in the order of its steps. Memories are numbered: the operands', then those that come up."""

    work: tuple[Work, ...]
    operands: tuple[Span, ...]
    bytes: tuple[int, ...]  # of each memory, 0 for an operand's
    results: tuple[int, ...]  # the memories that outlive a run
    outputs: tuple[Output, ...]
    dtype: str


def in_turn(draft: Draft) -> Program:
    """The draft as a program."""
    places, workspace = _places(draft)
    return Program(
        tuple([_at(launch, places) for launch in draft.work]),
        draft.operands,
        tuple([draft.bytes[memory] for memory in draft.results]),
        workspace,
        tuple([output._replace(memory=places[output.memory].memory) for output in draft.outputs]),
        draft.dtype,
    )


def _places(draft: Draft) -> tuple[dict[int, Address], int]:
    """Where each memory lies: an operand's, a result's, or in the workspace; and the bytes of that."""
    operands = len(draft.operands)
    places = {number: Address(number, 0) for number in range(operands)}
    places |= {memory: Address(operands + number, 0) for number, memory in enumerate(draft.results)}
    touched: dict[int, list[int]] = {}
    for turn, launch in enumerate(draft.work):
        for address in launch.addresses:
            if address.memory not in places:
                touched.setdefault(address.memory, []).append(turn)
    # What has no elements has an address all the same.
    lives = [Lifetime(max(1, draft.bytes[memory]), turns[0], turns[-1]) for memory, turns in touched.items()]
    begins, workspace = offsets(lives)
    last = operands + len(draft.results)
    places |= {memory: Address(last, begin) for memory, begin in zip(touched, begins, strict=True)}
    return places, workspace


def _at(work: Work, places: Mapping[int, Address]) -> Work:
    def placed(address: Address) -> Address:
        memory, start = places[address.memory]
        return Address(memory, start + address.offset)

    if isinstance(work, Product):
        a, b, c = work.addresses
        return replace(work, addresses=(placed(a), placed(b), placed(c)))
    return replace(work, addresses=tuple([placed(address) for address in work.addresses]))
