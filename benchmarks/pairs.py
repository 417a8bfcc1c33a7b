"""Random contractions of two arrays, seeded: the family "random pairs", in the spirit of jcmgray/einbench.

The rows of the other families are contractions that people chose; these are chosen by chance. A label belongs to the
left operand and the result, to the right operand and the result, to both operands (summed), or to all three (batch);
axes are in random order. The operations of the rows are evenly spaced on a logarithmic scale; the sizes of labels are
random on that scale.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from itertools import count
from random import Random

from benchmarks.workloads import Workload

FAMILY = "random pairs"
_SOURCE = "a random contraction of two arrays, in the spirit of github.com/jcmgray/einbench"
_SEED, _ROWS = 20261130, 60
_FLOPS = (1e3, 5e8)  # of the first row and the last, on a CPU
_GPU_FLOPS = 4e9  # of every row whose arrays are small enough, on a GPU
_ELEMENTS, _GPU_ELEMENTS = 25 * 10**6, 500 * 10**6  # of the largest array: 100 MB and 2 GB in float32

# Which of left operand, right operand and result have a label, and how often: as the pairs of einbench.
_ROLES = {(0, 2): 33, (1, 2): 31, (0, 1): 30, (0, 1, 2): 6}


def random_pairs(seed: int, rows: int, flops: tuple[float, float]) -> tuple[Workload, ...]:
    """So many rows, from the fewest operations to the most."""
    rng, (first, last) = Random(seed), flops
    steps = [first * (last / first) ** (number / (rows - 1)) for number in range(rows)]
    return tuple(_pair(rng, f"pair {number:02}", wanted) for number, wanted in enumerate(steps, 1))


def _pair(rng: Random, name: str, flops: float) -> Workload:
    """A pair of about so many operations (within a factor of 1.5), drawn again until its arrays are small enough."""
    while True:
        labels = string.ascii_lowercase[: min(2 + int(rng.expovariate(0.2)), 20, int(math.log2(flops / 2)))]
        terms, shares = _terms(rng, labels)
        sizes = _sizes(shares, flops / 2)
        if 2 / 3 < 2 * math.prod(sizes.values()) / flops < 3 / 2 and _largest(terms, sizes) <= _ELEMENTS:
            break
    fewer = (_sizes(shares, _GPU_FLOPS / 2 / 1.5**step) for step in count())
    large = next(sizes for sizes in fewer if _largest(terms, sizes) <= _GPU_ELEMENTS)
    texts = [" ".join(f"{label}={size}" for label, size in each.items()) for each in (sizes, large)]
    left, right, result = terms
    return Workload(FAMILY, name, f"{left},{right}->{result}", texts[0], _SOURCE, "float32", texts[1])


def _terms(rng: Random, labels: str) -> tuple[list[str], dict[str, float]]:
    """The terms of both operands and the result, and each label's share of the logarithm of the work."""
    roles = rng.choices(list(_ROLES), list(_ROLES.values()), k=len(labels))
    terms = ["".join(label for label, role in zip(labels, roles, strict=True) if term in role) for term in range(3)]
    lengths = [rng.expovariate(1) for _ in labels]  # divided by their sum: evenly distributed over all divisions of 1
    shares = {label: length / sum(lengths) for label, length in zip(labels, lengths, strict=True)}
    return ["".join(rng.sample(term, len(term))) for term in terms], shares


def _sizes(shares: Mapping[str, float], points: float) -> dict[str, int]:
    """Sizes of at least 2, whose product is about so many points."""
    return {label: round(2 * (points / 2 ** len(shares)) ** share) for label, share in shares.items()}


def _largest(terms: Sequence[str], sizes: Mapping[str, int]) -> int:
    return max(math.prod(sizes[label] for label in term) for term in terms)


PAIRS = random_pairs(_SEED, _ROWS, _FLOPS)
