"""The 48 contractions of the TCCG benchmark, v0.1, at the sizes at which Kim et al. measured them.

Springer and Bientinesi, "Design of a high-performance GEMM-like tensor-tensor multiplication", 2018, collected them
from four fields; the sizes, by which the largest tensor takes 200 to 864 MiB in double precision, are those of Kim et
al., "A code generator for high-performance tensor contractions on GPUs", 2019. `abcd-dbea-ec` means C[abcd] = A[dbea]
B[ec] with the first label the fastest, so each term is reversed here: the memory is theirs, the text that of numpy.
"""

from __future__ import annotations

from benchmarks.workloads import Workload

_SOURCE = "TCCG v0.1, Springer and Bientinesi 2018; sizes of Kim et al. 2019"

# Published, by family: C, A and B, first label the fastest; the sizes of the labels in alphabetical order.
_PUBLISHED = {
    "TCCG: TTM": """
        abc-bda-dc      312 312 24 312
        abc-dca-bd      312 24 296 312
        abcd-dbea-ec    72 72 24 72 72
        abcd-deca-be    72 24 72 72 72
        abcd-ebad-ce    72 72 24 72 72
        abcde-efbad-cf  48 32 24 32 48 32
        abcde-ecbfa-fd  48 32 32 24 48 48
        abcde-efcad-bf  48 24 32 32 48 32
    """,
    "TCCG: AO2MO": """
        abcd-ea-ebcd    72 72 72 72 72
        abcd-eb-aecd    72 72 72 72 72
        abcd-ec-abed    72 72 72 72 72
    """,
    "TCCG: CCSD": """
        ab-ac-cb        5136 5120 5136
        ab-acd-dbc      312 296 296 312
        ab-cad-dcb      312 296 312 312
        abc-acd-db      312 296 296 312
        abc-ad-bdc      312 312 296 296
        abc-adc-bd      312 312 296 296
        abc-adc-db      312 296 296 312
        abc-adec-ebd    72 72 72 72 72
        abcd-aebf-dfce  72 72 72 72 72 72
        abcd-aebf-fdec  72 72 72 72 72 72
        abcd-aecf-bfde  72 72 72 72 72 72
        abcd-aecf-fbed  72 72 72 72 72 72
        abcd-aedf-bfce  72 72 72 72 72 72
        abcd-aedf-fbec  72 72 72 72 72 72
        abcd-aefb-fdce  72 72 72 72 72 72
        abcd-aefc-fbed  72 72 72 72 72 72
        abcd-eafb-fdec  72 72 72 72 72 72
        abcd-eafc-bfde  72 72 72 72 72 72
        abcd-eafd-fbec  72 72 72 72 72 72
    """,
    "TCCG: CCSD(T)": """
        abcdef-dega-gfbc  24 16 16 24 16 16 24
        abcdef-degb-gfac  24 16 16 24 16 16 24
        abcdef-degc-gfab  24 16 16 24 16 16 24
        abcdef-dfga-gebc  24 16 16 24 16 16 24
        abcdef-dfgb-geac  24 16 16 24 16 16 24
        abcdef-dfgc-geab  24 16 16 24 16 16 24
        abcdef-efga-gdbc  24 16 16 16 24 16 24
        abcdef-efgb-gdac  24 16 16 16 24 16 24
        abcdef-efgc-gdab  24 16 16 16 24 16 24
        abcdef-gdab-efgc  24 16 16 16 24 16 24
        abcdef-gdac-efgb  24 16 16 16 24 16 24
        abcdef-gdbc-efga  24 16 16 16 24 16 24
        abcdef-geab-dfgc  24 16 16 24 16 16 24
        abcdef-geac-dfgb  24 16 16 24 16 16 24
        abcdef-gebc-dfga  24 16 16 24 16 16 24
        abcdef-gfab-degc  24 16 16 24 16 16 24
        abcdef-gfac-degb  24 16 16 24 16 16 24
        abcdef-gfbc-dega  24 16 16 24 16 16 24
    """,
}


def _rows() -> tuple[Workload, ...]:
    """In double precision on a GPU; in single precision on a CPU, where twelve take a second and more even so."""
    lines = [(family, *line.split()) for family, text in _PUBLISHED.items() for line in text.strip().splitlines()]
    rows = [_row(family, published, sizes) for family, published, *sizes in lines]
    return tuple(row.but(where=kind, dtype=dtype) for kind, dtype in _DTYPES.items() for row in rows)


_DTYPES = {"cuda": "float64", "cpu": "float32"}


def _row(family: str, published: str, sizes: list[str]) -> Workload:
    result, left, right = (term[::-1] for term in published.split("-"))
    labels = zip(sorted({*result, *left, *right}), sizes, strict=True)
    named = " ".join(f"{label}={size}" for label, size in labels)
    return Workload(family, published, f"{left},{right}->{result}", named, _SOURCE)


TCCG = _rows()
