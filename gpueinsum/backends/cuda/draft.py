"""From work on memories by number to a program: memories get their places, and launches lanes where that pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpueinsum.backends.cuda.kernels import blocks_at_once
from gpueinsum.backends.cuda.lanes import LANES, Item, Lanes, Use, hazards, side_by_side, starts
from gpueinsum.backends.cuda.program import Address, Launch, Output, PointerProduct, Product, Program, Span, Work
from gpueinsum.backends.cuda.workspace import LaneLifetime, Life, Lifetime, offsets
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds, product_seconds

# Bytes that lanes may take beyond what turns take, since they keep more alive at once: as much as cuBLAS takes for one
# handle on an H200. Users plan for memory first; and programs of large arrays have launches that fill the device.
MOST_MEMORY = 32 << 20
# Seconds that a launch takes on the device beside its work, while others may run there. By reasoning, half of what it
# takes with the host's part (profiles/h200.json: 4 us); not measured yet.
_DEVICE_LAUNCH = 2e-6
_TILE = 128  # rows and columns of a multiprocessor's part of a product in cuBLAS' larger kernels


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
    """The draft as a program that launches everything in turn."""
    lives = {
        memory: Lifetime(_size(draft, memory), turns[0], turns[-1])
        for memory, turns in _touched(draft, draft.work).items()
    }
    return _placed(draft, draft.work, *_places(draft, lives))


def on_lanes(draft: Draft, program: Program, processors: int, profile: Profile, launch: float) -> Program:
    """`program`, which is the draft in turn, with launches side by side where that pays on a device of these rates.

    `launch` seconds are the host's for each launch: where they are longer than the work, lanes pay only within a graph.
    """
    after = hazards(_uses(draft, draft.work, _apart(draft)))
    if all(number in before for number, before in enumerate(after[1:])):  # a chain
        return program
    items = [_item(draft, work, before, processors, profile) for work, before in zip(draft.work, after, strict=True)]
    lanes = side_by_side(items, launch)
    if lanes is None:
        return program
    beside = _on_lanes(draft, lanes)
    return beside if beside.bytes <= program.bytes + MOST_MEMORY else program


def _on_lanes(draft: Draft, lanes: Lanes) -> Program:
    """Memory serves again only when all that touched it is certain to have ended.

    What launches wait for is found anew where all memory has its place, from the bytes that they touch there.
    """
    work = tuple([draft.work[number] for number in lanes.order])
    _, ended = starts(hazards(_uses(draft, work, _apart(draft))), lanes.lanes)
    lives = {
        memory: _lane_lifetime(_size(draft, memory), turns, lanes.lanes, ended)
        for memory, turns in _touched(draft, work).items()
    }
    places, workspace = _places(draft, lives)
    found, _ = starts(hazards(_uses(draft, work, places)), lanes.lanes)
    return replace(_placed(draft, work, places, workspace), starts=tuple(found))


def _lane_lifetime(
    nbytes: int, turns: Sequence[int], lanes: Sequence[int], ended: Sequence[tuple[int, ...]]
) -> LaneLifetime:
    first = [1 + min(before) for before in zip(*[ended[turn] for turn in turns], strict=True)]
    last = [-1] * LANES
    for turn in turns:
        last[lanes[turn]] = turn
    return LaneLifetime(nbytes, tuple(first), tuple(last))


# ---------------------------------------------------------------- places


def _touched(draft: Draft, work: Sequence[Work]) -> dict[int, list[int]]:
    """The memories that do not outlive a run, and the turns at which each is touched."""
    touched: dict[int, list[int]] = {}
    for turn, launch in enumerate(work):
        for address in launch.addresses:
            touched.setdefault(address.memory, []).append(turn)
    for memory in (*range(len(draft.operands)), *draft.results):
        touched.pop(memory, None)
    return touched


def _size(draft: Draft, memory: int) -> int:
    return max(1, draft.bytes[memory])  # what has no elements has an address all the same


def _places(draft: Draft, lives: Mapping[int, Life]) -> tuple[dict[int, Address], int]:
    """Where each memory lies: an operand's, a result's, or in the workspace; and the bytes of that."""
    operands = len(draft.operands)
    places = {number: Address(number, 0) for number in range(operands)}
    places |= {memory: Address(operands + number, 0) for number, memory in enumerate(draft.results)}
    begins, workspace = offsets([*lives.values()])
    last = operands + len(draft.results)
    places |= {memory: Address(last, begin) for memory, begin in zip(lives, begins, strict=True)}
    return places, workspace


def _apart(draft: Draft) -> dict[int, Address]:
    """As if no two memories shared a byte."""
    return {memory: Address(memory, 0) for memory in range(len(draft.bytes))}


def _placed(draft: Draft, work: Sequence[Work], places: Mapping[int, Address], workspace: int) -> Program:
    return Program(
        tuple([_at(launch, places) for launch in work]),
        draft.operands,
        tuple([draft.bytes[memory] for memory in draft.results]),
        workspace,
        tuple([output._replace(memory=places[output.memory].memory) for output in draft.outputs]),
        draft.dtype,
    )


def _at(work: Work, places: Mapping[int, Address]) -> Work:
    def placed(address: Address) -> Address:
        memory, start = places[address.memory]
        return Address(memory, start + address.offset)

    if isinstance(work, Product):
        a, b, c = work.addresses
        return replace(work, addresses=(placed(a), placed(b), placed(c)))
    return replace(work, addresses=tuple([placed(address) for address in work.addresses]))


def _uses(draft: Draft, work: Sequence[Work], places: Mapping[int, Address]) -> list[list[Use]]:
    """What each launch touches of the memories that are written; the whole of each, whichever part it touches."""
    found = []
    for launch in work:
        *_, written = launch.addresses
        used = [address.memory for address in launch.touched if address.memory >= len(draft.operands)]
        uses = []
        for memory in dict.fromkeys(used):
            place, start = places[memory]
            uses.append(Use(place, start, start + _size(draft, memory), memory == written.memory))
        found.append(uses)
    return found


# ---------------------------------------------------------------- prices


def _item(draft: Draft, work: Work, after: Sequence[int], processors: int, profile: Profile) -> Item:
    """What a launch takes on the device, by itself.

    It fills the share of the device that its blocks take, or the share of its rates at which it is predicted to run,
    whichever is more: else four products side by side were predicted to be faster than the device.
    """
    match work:
        case Product() | PointerProduct():
            gemm, item = work.gemm, item_bytes(work.dtype)
            sizes = gemm.batch, gemm.m, gemm.n, gemm.k
            moved = item * gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n)
            seconds = product_seconds(profile, work.dtype, *sizes, moved) - profile.launch
            rate = profile.rate(work.dtype)
            assert rate is not None  # or it were a launch of ours
            flops = (8.0 if work.dtype.startswith("complex") else 2.0) * gemm.batch * gemm.m * gemm.n * gemm.k
            filled = gemm.batch * -(-gemm.m // _TILE) * -(-gemm.n // _TILE) / processors
            busy = max(flops / rate.flops_per_second, _moving(profile, moved))
        case Launch():
            moved = sum(_bytes(draft, memory) for memory in {address.memory for address in work.touched})
            busy = _moving(profile, moved)
            seconds = busy / profile.permuted if work.kernel.name == "permute" else busy
            filled = work.blocks / blocks_at_once(processors)
    seconds += _DEVICE_LAUNCH
    return Item(seconds, min(1.0, max(filled, busy / seconds)), after)


def _bytes(draft: Draft, memory: int) -> int:
    return draft.operands[memory].elements_bytes if memory < len(draft.operands) else draft.bytes[memory]


def _moving(profile: Profile, moved: float) -> float:
    return pass_seconds(profile, moved) - profile.launch
