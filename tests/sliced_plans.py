"""Plans with random sliced labels in random loops, the same ones for the same plan."""

from dataclasses import replace
from random import Random

from gpueinsum import Plan
from gpueinsum.language.check import check_plan


def in_slices(plan: Plan) -> Plan:
    """The plan in one loop or two over each of its labels with a chance of one half, in blocks of any size."""
    rng = Random(str(plan))
    sliced = [(label, rng.randint(1, max(1, size))) for label, size in plan.sizes if rng.random() < 0.5]
    rng.shuffle(sliced)
    sliced = replace(plan, sliced=tuple(sliced), inner=rng.randrange(len(sliced)) if sliced else 0)
    check_plan(sliced)
    return sliced
