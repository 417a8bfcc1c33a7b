"""Batches handed to an executor: which operands travel with them, how many are under way, what is tried again."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from functools import cache
from queue import SimpleQueue
from typing import Any, NamedTuple

from gpueinsum.backends.select import cuda_backend
from gpueinsum.distributed.dask import DaskExecutor, known
from gpueinsum.distributed.operands import Sent
from gpueinsum.distributed.parts import Parts
from gpueinsum.distributed.worker import Answer, Work, run_batch
from gpueinsum.errors import DeviceError

_UNKNOWN = 32  # workers of an executor that does not say how many it has
_AHEAD = 2  # batches under way for each worker: one that is run, and one that waits for it
# Of a batch that an executor, not this package, failed. Some engines fail the tasks of a worker that they lose
# (ipyparallel, submitit), others run these again by themselves (Dask, up to its `allowed-failures`).
_TRIES = 3


class Here(Executor):
    """Runs everything at once, in the thread that submits it."""

    _max_workers = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextlib.contextmanager
def on_devices(numbers: Sequence[int]) -> Iterator[Executor]:
    """A thread for each of these GPUs, which is current there."""
    import cupy

    waiting: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        waiting.put(number)
    pool = ThreadPoolExecutor(len(numbers), "gpueinsum", initializer=lambda: cupy.cuda.Device(waiting.get()).use())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def device_numbers(devices: str | Sequence[int]) -> list[int]:
    """The GPUs of this machine that `devices=` means: none if it is "all" and there are none."""
    if devices == "all":
        try:
            cuda_backend()
        except DeviceError:
            return []
    cuda_backend()
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if devices == "all":
        return list(range(count))
    is_list = isinstance(devices, Sequence) and not isinstance(devices, str)
    listed = [number for number in devices if type(number) is int and 0 <= number < count] if is_list else []
    if not is_list or not listed or len({*listed}) != len(devices):
        raise ValueError(f'devices={devices!r:.60} is neither "all" nor a list of some of the numbers 0 to {count - 1}')
    return listed


class _Try(NamedTuple):
    """A batch to be submitted."""

    batch: int
    number: int = 1  # 2 when it is tried again
    sent: tuple[str, ...] = ()  # digests of the operands that travel with it
    lacking: Hashable = None  # the worker that these are for, if it is known


def answers(
    executor: Executor, work: Work, operands: Sent, batches: Mapping[int, range]
) -> Iterator[tuple[int, Parts]]:
    """The parts that each batch gives, in the order in which they come.

    An executor does not say which worker gets a task. So operands travel with as many batches as there are workers, and
    then with one for each worker that answers that it lacks some. Raises what a worker raises, and RuntimeError where
    the executor itself fails.
    """
    executor = known(executor)
    ship, is_free = _shipping(executor, operands)
    large = tuple([each for each, file in zip(work.operands, work.files, strict=True) if file is None])
    waiting, under_way = deque(map(_Try, batches)), dict[Future[Answer], _Try]()
    sends, lacking, submitted = worker_count(executor), set[Hashable](), 0
    try:
        while waiting or under_way:
            room = _room(executor)  # which may change
            while waiting and len(under_way) < room:
                one = waiting.popleft()
                if not one.sent and (is_free or sends > 0):
                    one, sends = one._replace(sent=large), sends - 1
                submitted += 1
                arguments = work, one.batch, batches[one.batch], submitted
                under_way[_submit(executor, *arguments, ship(one.sent) if one.sent else None)] = one
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                one = under_way.pop(future)
                answer = _answer(future, is_last=one.number == _TRIES)
                if answer is None:
                    ship.cache_clear()  # what was shipped may be lost with a worker
                    waiting.appendleft(one._replace(number=one.number + 1))
                    continue
                if answer.error is not None:
                    raise answer.error
                lacking.discard(one.lacking)
                if answer.missing:
                    sent = () if answer.worker in lacking else answer.missing
                    lacking.add(answer.worker)
                    waiting.appendleft(one._replace(sent=sent, lacking=answer.worker if sent else None))
                else:
                    lacking.discard(answer.worker)
                    yield one.batch, answer.parts
    finally:
        for future in under_way:
            future.cancel()


def _room(executor: Executor) -> int:
    """How many batches may be under way."""
    return 1 if isinstance(executor, Here) else _AHEAD * worker_count(executor)


def worker_count(executor: Executor) -> int:
    """How many batches an executor runs at a time, as far as it says so."""
    for name in ("num_workers", "_max_workers"):  # of mpi4py's and Dask's; of Python's own and loky's
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return _UNKNOWN


def _shipping(executor: Executor, operands: Sent) -> tuple[Any, bool]:
    """A function from digests to the operands, as an argument of a task; and whether such an argument costs nothing."""
    is_free = isinstance(executor, DaskExecutor)

    @cache
    def ship(wanted: tuple[str, ...]) -> Any:
        found = {each: operands[each] for each in wanted}
        return executor.ship(found) if isinstance(executor, DaskExecutor) else found

    return ship, is_free


def _submit(executor: Executor, work: Work, batch: int, numbers: range, submitted: int, sent: Any) -> Future[Answer]:
    try:
        return executor.submit(run_batch, work, numbers, batch == 0, submitted, sent)
    except BrokenExecutor as error:
        raise _failed(error) from error


def _answer(future: Future[Answer], is_last: bool) -> Answer | None:
    """What came of a task; None where the executor failed it, and it is to be tried again."""
    try:
        return future.result()
    except Exception as error:
        if is_last or isinstance(error, BrokenExecutor):  # which has no workers any more
            raise _failed(error) from error
        return None


def _failed(error: BaseException) -> RuntimeError:
    return RuntimeError(
        f"the executor failed, {type(error).__name__}: {error}; with checkpoint=DIR the same call on a new executor "
        "goes on where it stopped"
    )
