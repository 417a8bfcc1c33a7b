"""A schedule as a function of numpy arrays, which frees each register after its last use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

from gpueinsum.backends.cpu.lower import Array, lower_step
from gpueinsum.language.plan import last_uses
from gpueinsum.schedule.schedule import Schedule

_Registers = tuple[int, ...]


def program(schedule: Schedule, is_single: bool) -> Callable[..., Any]:
    """From operands to the schedule's outputs, a tuple; to the only one itself if it `is_single`."""
    sizes, operands = dict(schedule.sizes), len(schedule.inputs)
    calls: list[Callable[..., Array]] = [lower_step(step, sizes, schedule.dtype) for step in schedule.steps]
    sources = tuple([step.sources for step in schedule.steps])
    if is_single and len(calls) == 1 and schedule.outputs == (operands,) and sources[0] == tuple(range(operands)):
        return calls[0]
    result = schedule.outputs[0] if is_single else schedule.outputs
    return _wire(operands, sources, last_uses(operands, sources, schedule.outputs), result)(*calls)


def step_seconds(schedule: Schedule, operands: Sequence[Array]) -> list[float]:
    """Seconds of each step in one run, which frees registers as a program does."""
    sizes = dict(schedule.sizes)
    calls = [lower_step(step, sizes, schedule.dtype) for step in schedule.steps]
    ends = last_uses(len(operands), [step.sources for step in schedule.steps], schedule.outputs)
    registers: dict[int, Array] = dict(enumerate(operands))
    seconds = []
    for register, (step, call, done) in enumerate(zip(schedule.steps, calls, ends, strict=True), len(operands)):
        arrays = [registers[source] for source in step.sources]
        start = perf_counter()
        registers[register] = call(*arrays)
        seconds.append(perf_counter() - start)
        del arrays
        for end in done:
            del registers[end]
    return seconds


@lru_cache(maxsize=256)
def _wire(
    operands: int, sources: tuple[_Registers, ...], last_uses: tuple[_Registers, ...], result: _Registers | int
) -> Callable[..., Callable[..., Any]]:
    """From prepared steps to a function of the operands, straight-line code made of numbers of registers alone.

    Schedules that read the same registers share it. The function returns one register, or a tuple of several.

    A loop over the steps costs more than small steps do: 19 products of 3 x 3 took 14.1 us in a loop, 6.1 us in
    straight-line code and 6.3 us written by hand (numpy 2.4, medians). Made at 20 us a step, once per wiring.

    For `ij,jk,kl->il`:

        def program(step3, step4):
            def run(r0, r1, r2):
                r3 = step3(r1, r2)
                r3 = step4(r0, r3)
                return r3
            return run

    A result takes the name of an intermediate that ends with its step, whose memory goes thereby; others that end
    there become None. Operands stay the caller's.
    """
    name = {register: f"r{register}" for register in range(operands)}
    lines = []
    for register, (read, done) in enumerate(zip(sources, last_uses, strict=True), operands):
        arguments = ", ".join([name[source] for source in read])
        ending = [name[end] for end in done if operands <= end < register]
        name[register] = ending.pop() if ending else f"r{register}"
        lines.append(f"{name[register]} = step{register}({arguments})")
        if register in done:  # a result that nothing needs
            ending.append(name[register])
        lines += [f"{end} = None" for end in ending]
    if isinstance(result, int):
        lines.append(f"return {name[result]}")
    else:
        lines.append(f"return ({''.join([f'{name[register]}, ' for register in result])})")
    body = "\n        ".join(lines)
    steps = ", ".join([f"step{register}" for register in range(operands, operands + len(sources))])
    arguments = ", ".join([name[register] for register in range(operands)])
    namespace: dict[str, Any] = {}
    exec(f"def program({steps}):\n    def run({arguments}):\n        {body}\n    return run", namespace)
    wired: Callable[..., Callable[..., Any]] = namespace["program"]
    return wired
