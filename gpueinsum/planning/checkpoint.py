"""Plan to plan: a plan that keeps to a number of bytes, since it computes again what does not fit (checkpointing).

The plan is walked through step by step, as it would run. Where the next result does not fit, a register that is needed
only later is given up, and computed again when that time comes: the one that is cheapest to compute for the memory and
the time that it sets free (the rule of dynamic tensor rematerialization, Kirisame et al., ICLR 2021; here the future is
known, so that time counts until the next use).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from gpueinsum.costs.counts import peak_bytes, step_costs
from gpueinsum.errors import LimitError
from gpueinsum.language.dependence import whole_registers
from gpueinsum.language.plan import Plan
from gpueinsum.language.rewrite import prune, written_registers
from gpueinsum.language.slices import cut, one_slice
from gpueinsum.language.steps import Step, renumber
from gpueinsum.text import bytes_text

# Parts of the limit that the forward pass may leave to the backward pass; what remains is room to compute in.
_SHARES = (1, 0.75, 0.5, 0.375, 0.25, 0.125, 0)
_MOST_STEPS = 20  # times as many as the plan has: a plan that grows more than this is none


def checkpoint(plan: Plan, limit: int, forward: int | None = None, taken: int = 0) -> tuple[Plan, int]:
    """The plan with intermediates and outputs of `limit` bytes at most, and how many of its steps go forward.

    Of the given plan the first `forward` steps do, and what they leave to the others, the backward pass, stays until
    the end, since that may be run again; by default the plan is to be run at once. `taken` bytes of the limit are taken
    by something else. Of the plans found this is the one of the least work. Raises PlanError, saying what would do, if
    there is none.
    """
    found = find(plan, limit - taken, forward)
    if found is not None:
        return found
    nbytes = [0] * len(plan.inputs) + [cost.result_bytes for cost in step_costs(plan)]
    together = [{register, *step.sources} for register, step in enumerate(plan.steps, len(plan.inputs))]
    least = max(sum(nbytes[register] for register in registers) for registers in (set(plan.outputs), *together))
    low, high = limit - taken, max(limit - taken + 1, least, 1)
    while find(plan, high, forward) is None:
        low, high = high, high * 2
    if forward is None:
        high = min(high, peak_bytes(plan))
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if find(plan, middle, forward) else (middle, high)
    raise too_small(plan, limit, high + taken)


def too_small(plan: Plan, limit: int, least: int, how: str = "") -> LimitError:
    """What to raise for a plan that takes more than the limit, and at the `least` so many bytes."""
    message = f"a memory_limit of {bytes_text(limit)} is too small for {plan.equation:.60}{how}"
    return LimitError(f"{message}: {bytes_text(least)} ({least} bytes) would do", least)


def find(plan: Plan, limit: int, forward: int | None = None) -> tuple[Plan, int] | None:
    """`checkpoint`'s, or None. In slices the same is computed again in each, and nothing that all have in common."""
    found = []
    if plan.sliced:
        limit -= peak_bytes(cut(plan).zeros)
    for share in () if limit < 0 else [1] if forward is None else _SHARES:
        walk = _Walk(plan, limit, forward)
        if walk.run(int(share * limit)):
            found.append(walk.result())
            if not walk.again:
                break
    return min(found, key=lambda fitting: sum(_prices(fitting[0])), default=None)


def _prices(plan: Plan) -> list[int]:
    """What each step takes: flops and bytes moved alike, so that sums and copies have a price, too."""
    return [cost.flops + cost.bytes_moved for cost in step_costs(plan)]


class _Walk:
    """One way through a plan; registers go by their numbers in the plan given, and `number` is that in the new one."""

    def __init__(self, plan: Plan, limit: int, forward: int | None) -> None:
        self.given = plan
        self.operands = len(plan.inputs)
        self.forward = forward
        self.limit = limit
        part = one_slice(plan)
        self.bytes = [0] * self.operands + [cost.result_bytes for cost in step_costs(part)]
        self.price = [0] * self.operands + _prices(part)
        self.is_view = [owner != register for register, owner in enumerate(part.owners())]
        self.uses: list[list[int]] = [[] for _ in self.bytes]  # the steps that read a register, the next one last
        for at in range(len(plan.steps) - 1, -1, -1):
            for source in set(plan.steps[at].sources):
                self.uses[source].append(at)
        self.lasting = set(plan.outputs)  # never given up
        if plan.sliced:
            self.lasting |= whole_registers(plan)
        self.number = {operand: operand for operand in range(self.operands)}  # the registers that are there
        self.home = dict(self.number)  # in whose memory each lies, by number
        self.tenants: dict[int, set[int]] = {}  # the registers that lie in the memory of each number
        self.size: dict[int, int] = {}  # bytes of that memory
        self.taken = 0  # of all of it
        self.steps: list[Step] = []
        self.forward_steps = 0
        self.again = False

    def run(self, left: int) -> bool:
        """Walk through; False if it cannot be done. The forward pass leaves `left` bytes at most, if it can."""
        for at, step in enumerate(self.given.steps):
            if at == self.forward:
                self._turn(at, left)
            if not self._compute(self.operands + at, at):
                return False
            for source in set(step.sources):
                self.uses[source].pop()
            for register in {*step.sources, self.operands + at}:
                self._release(register)
        if self.forward == len(self.given.steps):
            self.forward_steps = len(self.steps)
        return True

    def result(self) -> tuple[Plan, int]:
        """The new plan, without what was given up before anything read it, and how many of its steps go forward."""
        whole = replace(self.given, steps=tuple(self.steps))
        outputs = [self.number[output] for output in self.given.outputs]
        turn = self.operands + self.forward_steps
        return prune(whole, outputs), sum(register < turn for register in written_registers(whole, outputs))

    def _turn(self, at: int, left: int) -> None:
        """Give up what the backward pass shall compute again; what it shall not is there until the end."""
        while self.taken > left and self._give_up(at, pinned=Counter()):
            pass
        self.lasting |= set(self.number)
        self.forward_steps = len(self.steps)

    def _compute(self, register: int, at: int) -> bool:
        """Write a register at step `at` of the plan given, and before it all that it needs and was given up."""
        stack, pinned = [register], Counter(self._sources(register))
        while stack:
            register = stack[-1]
            missing = next((source for source in self._sources(register) if source not in self.number), None)
            if missing is not None:
                self.again = True
                stack.append(missing)
                pinned.update(self._sources(missing))
                continue
            while self.taken + self.bytes[register] > self.limit:
                if not self._give_up(at, pinned):
                    return False
            self._write(stack.pop())
            pinned.subtract(self._sources(register))
            for source in self._sources(register):
                if not pinned[source]:
                    self._release(source)
        return len(self.steps) <= _MOST_STEPS * len(self.given.steps)

    def _sources(self, register: int) -> tuple[int, ...]:
        return self.given.steps[register - self.operands].sources

    def _write(self, register: int) -> None:
        sources = self._sources(register)
        self.steps.append(renumber(self.given.steps[register - self.operands], self.number))
        number = self.number[register] = self.operands + len(self.steps) - 1
        home = self.home[register] = self.home[sources[0]] if self.is_view[register] else number
        self.tenants.setdefault(home, set()).add(register)
        if home == number:
            self.size[home] = self.bytes[register]
            self.taken += self.bytes[register]

    def _release(self, register: int) -> None:
        """Free a register that no step of the plan given will read."""
        if register >= self.operands and not self.uses[register] and register not in self.lasting:
            self._forget(register)

    def _forget(self, register: int) -> None:
        if register in self.number:
            del self.number[register]
            home = self.home.pop(register)
            self.tenants[home].discard(register)
            if not self.tenants[home]:
                del self.tenants[home]
                self.taken -= self.size.get(home, 0)  # none for an operand's

    def _give_up(self, at: int, pinned: Counter[int]) -> bool:
        """Free the memory that costs least to fill again; False if there is none to free."""
        best, lowest = -1, math.inf
        for home, tenants in self.tenants.items():
            if self.size.get(home) and tenants.isdisjoint(self.lasting) and not any(pinned[t] for t in tenants):
                uses = [self.uses[register][-1] for register in tenants if self.uses[register]]
                gain = self.size[home] * max(1, min(uses, default=len(self.given.steps)) - at)
                score = self._price(tenants, lowest * gain) / gain
                if score < lowest:
                    best, lowest = home, score
        if best < 0:
            return False
        for register in list(self.tenants[best]):
            self._forget(register)
        return True

    def _price(self, registers: Collection[int], most: float) -> float:
        """What it takes to compute these again, with all that is not there any more; infinite if more than `most`."""
        price, missing, stack = 0, set(registers), [*registers]
        while stack:
            register = stack.pop()
            price += self.price[register]
            if price > most:
                return math.inf
            for source in self._sources(register):
                if source not in self.number and source not in missing:
                    missing.add(source)
                    stack.append(source)
        return price
