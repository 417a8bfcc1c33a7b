"""A folder that a run can be taken up from: what is run, and the partial sums of the batches that are done."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpueinsum.distributed.parts import Node, Part, Parts, Sums
from gpueinsum.errors import PlanError
from gpueinsum.files import replacement
from gpueinsum.language.subscripts import Shape

_VERSION = 1
_SUM = re.compile(r"sum-(\d{1,2})-(\d{1,9})\.npz")
_UNFINISHED = re.compile(rf"\.(run\.json|{_SUM.pattern})\.[0-9a-f]+")  # of a process that was killed while it wrote


class Checkpoint:
    """The folder of a run: `run.json`, which says what is run, and a file for each partial sum.

    Every file is written whole or not at all, and a sum is deleted only when a larger one has its batches: whatever
    happens, the files together hold what was saved last.
    """

    def __init__(
        self, folder: str | os.PathLike[str], run: dict[str, Any], arrays: Sequence[tuple[Shape, Any]]
    ) -> None:
        """The folder for a run, made if there is none; raises PlanError if it is another run's.

        `arrays` are shape and dtype of what is summed. `batches` of the run is how it is begun: the number in the
        folder counts.
        """
        self.folder, self._arrays, self._saved = Path(folder), arrays, set[Node]()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)
        file = self.folder / "run.json"
        self._run = {"version": _VERSION, **run}
        if file.exists():
            self._run["batches"] = self._batches_of_same_run(file)
        elif any(self.folder.iterdir()):
            raise PlanError(f"checkpoint {folder} is the folder of something else: it has files, but no run.json")
        else:
            self._write(file, json.dumps(self._run).encode())

    def _batches_of_same_run(self, file: Path) -> int:
        """How many batches the run in the folder has. Raises PlanError unless it is this one."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            there = {name: found[name] for name in self._run}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise PlanError(f"{file} cannot be read as that of a checkpoint: {error!r}") from error
        wanted = json.loads(json.dumps(self._run))
        for name, value in there.items():
            if name == "operands" and len(value) == len(wanted[name]):
                changed = [k for k, (old, new) in enumerate(zip(value, wanted[name], strict=True)) if old != new]
                if changed:
                    raise PlanError(f"checkpoint {self.folder} is of other operands: operand {changed[0]} has changed")
            elif name != "batches" and value != wanted[name]:
                shown = "" if name in ("plan", "operands") else f": {value!r}, not {wanted[name]!r}"
                raise PlanError(f"checkpoint {self.folder} is of another {name}{shown}")
        batches = there["batches"]
        if type(batches) is not int or batches < 1:
            raise PlanError(f"{file} cannot be read as that of a checkpoint: {batches!r} batches")
        return batches

    def load(self) -> Sums:
        """What is done."""
        sums = Sums(self._run["batches"])
        found = [_SUM.fullmatch(path.name) for path in self.folder.iterdir()]
        nodes = sorted([(int(name[1]), int(name[2])) for name in found if name], reverse=True)
        for node in nodes:  # the largest first: what is below one of them was not deleted in time
            above = {(node[0] + up, node[1] >> up) for up in range(1, self._run["batches"].bit_length() + 1)}
            if not above & self._saved:
                sums.insert(node, self._read(node, sums))
            self._saved.add(node)
        return sums

    def save(self, sums: Sums) -> None:
        """Put what is done in the folder. Raises OSError, and what was saved before is then still there."""
        for node in sums.nodes.keys() - self._saved:
            self._write(self._path(node), sums.nodes[node])
            self._saved.add(node)
        for node in self._saved - sums.nodes.keys():  # when the sums that have their batches are there
            self._path(node).unlink(missing_ok=True)
            self._saved.discard(node)

    def _path(self, node: Node) -> Path:
        return self.folder / f"sum-{node[0]}-{node[1]}.npz"

    def _write(self, path: Path, content: bytes | Parts) -> None:
        try:
            with replacement(path) as beside, beside.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    np.savez(file, **_named(content))  # type: ignore[arg-type]  # it takes any names
                file.flush()
                os.fsync(file.fileno())  # a name in its place is worth nothing if the machine goes down before
        except OSError as error:
            message = f"the checkpoint cannot be written ({error.strerror}); what it held before is kept"
            raise OSError(error.errno, message, str(path)) from error

    def _read(self, node: Node, sums: Sums) -> Parts:
        path = self._path(node)
        try:
            if not sums.batches_of(node):
                raise ValueError(f"the run has {sums.batches} batches")
            with np.load(path, allow_pickle=False) as found:
                return tuple([_part(found, k, *array) for k, array in enumerate(self._arrays)])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise PlanError(
                f"{path} is no partial sum of this run ({error}): without it its batches run again"
            ) from error


def _named(parts: Parts) -> dict[str, np.ndarray[Any, Any]]:
    named: dict[str, np.ndarray[Any, Any]] = {}
    for number, part in enumerate(parts):
        if part is not None:
            named |= {f"corner{number}": np.array(part.corner, np.int64), f"values{number}": part.values}
    return named


def _part(found: Any, number: int, shape: Shape, dtype: Any) -> Part | None:
    if f"values{number}" not in found:
        return None
    part = Part(tuple(found[f"corner{number}"].tolist()), found[f"values{number}"])
    is_inside = len(part.corner) == part.values.ndim == len(shape) and all(
        0 <= own.start <= own.stop <= size for own, size in zip(part.box, shape, strict=True)
    )
    if not is_inside or part.values.dtype != dtype:
        raise ValueError(f"result {number} of shape {shape} and {dtype} has no such part")
    return part
