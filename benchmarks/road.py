"""`python -m benchmarks.road`: what a plan in slices takes on 1 to 1,000 GPUs, by its predicted times, with no GPU."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gpueinsum as ge
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.distributed.parts import summed_arrays
from gpueinsum.distributed.run import TASK_SECONDS, batch_count
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut
from gpueinsum.schedule.slices import predicted_seconds
from gpueinsum.text import bytes_text, count_text, seconds_text

_GPUS = (1, 8, 64, 512, 1000)
# Six tensors, each pair of which shares a label of 48 values: 5.7 GiB of operands, 1.9e19 operations.
_SIMPLEX = "abcde,afghi,bfjkl,cgjmn,dhkmo,eilno->"


@dataclass(frozen=True)
class Road:
    """Bytes and seconds of a plan in slices: of one slice, of the operands, of what a batch gives, of them all."""

    plan: Plan
    profile: Profile
    network: float  # bytes per second in and out of each machine

    @property
    def seconds(self) -> float:
        """Of all slices, on one GPU."""
        return predicted_seconds(self.plan, self.profile)

    @property
    def batches(self) -> int:
        return batch_count(self.plan, self.profile)

    @property
    def operand_bytes(self) -> int:
        return _elements(self.plan, range(len(self.plan.inputs))) * item_bytes(self.plan.dtype)

    @property
    def result_bytes(self) -> int:
        """The most that a batch gives."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in summed_arrays(cut(self.plan)))

    def facts(self) -> Iterator[str]:
        slices, depth = cut(self.plan).count, (self.batches - 1).bit_length()
        blocks = ", ".join(f"{label}={block}" for label, block in self.plan.sliced)
        yield f"{self.plan.equation}  {self.plan.dtype}, in slices of {blocks}, on {self.profile.name} (predicted)"
        yield f"at once: {bytes_text(replace(self.plan, sliced=()).peak_bytes(self.profile))}"
        yield (
            f"in slices: {bytes_text(self.plan.peak_bytes(self.profile))} beside {bytes_text(self.operand_bytes)} of "
            f"operands; {count_text(slices)} slices of {seconds_text(self.seconds / slices)} each"
        )
        yield (
            f"{self.batches} batches of {seconds_text(self.seconds / self.batches)}, which give at most "
            f"{bytes_text(self.result_bytes)} each; a tree of {depth} levels adds them up"
        )

    def stages(self, gpus: int) -> dict[str, float]:
        """Seconds of each part of the work; the longest binds, as all but the first operands go on at the same time."""
        hops = math.ceil(math.log2(gpus + 1))
        return {
            "slices": math.ceil(self.batches / gpus) * self.seconds / self.batches,
            "operands, one sender": gpus * self.operand_bytes / self.network,
            "operands, worker to worker": hops * self.operand_bytes / self.network,
            "results": self.batches * self.result_bytes / self.network,
            "tasks": self.batches * TASK_SECONDS,
        }

    def table(self) -> str:
        """In Markdown, a line for each number of GPUs."""
        names = list(self.stages(1))
        lines = [f"| GPUs | {' | '.join(names)} |", f"| ---: |{' ---: |' * len(names)}"]
        for gpus in _GPUS:
            lines.append(f"| {gpus:,} | {' | '.join(map(seconds_text, self.stages(gpus).values()))} |")
        return "\n".join(lines)


def _elements(plan: Plan, registers: Sequence[int]) -> int:
    return sum(math.prod(plan.shape(register)) for register in registers)


def simplex(size: int = 48) -> Plan:
    """The closed network of six tensors in slices of four labels."""
    plan = ge.einsum_plan(_SIMPLEX, *[(size,) * 5] * 6, dtype="float32", optimize="dp")
    return replace(plan, sliced=(("d", 1), ("h", 1), ("i", 1), ("e", 1)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.road", description=__doc__)
    parser.add_argument("--plan", type=Path, metavar="FILE.json", help="of a plan in slices; by default six tensors")
    parser.add_argument("--device", default="h200", metavar="NAME", help="a profile's name or file; by default h200")
    parser.add_argument("--network", type=float, default=25.0, metavar="GB/S", help="of each machine; by default 25")
    given = parser.parse_args(arguments)
    plan = Plan.from_json(given.plan.read_text(encoding="utf-8")) if given.plan else simplex()
    road = Road(plan, device_profile(given.device), given.network * 1e9)
    print("\n".join([*road.facts(), "", road.table()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
