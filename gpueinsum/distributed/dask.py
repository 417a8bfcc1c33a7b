"""Dask's workers as an executor: with its own way for large data, and a word when a worker dies with a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any


class DaskExecutor(Executor):
    """The workers of a `distributed.Client`, as `client.get_executor(**options)` has them.

    That executor never settles a future whose result is lost before it was fetched, with the worker that held it
    (distributed 2026.8): one run in ten, when all workers died at once, waited for ever.
    """

    def __init__(self, client: Any, options: Mapping[str, Any]) -> None:
        self._client, self._options = client, options

    @property
    def num_workers(self) -> int:
        """How many tasks run at a time: workers come and go."""
        return sum(self._client.nthreads().values())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        theirs = self._client.submit(fn, *args, **{**self._options, "pure": False}, **kwargs)
        ours: Future[Any] = Future()

        def settle(theirs: Any) -> None:
            if ours.set_running_or_notify_cancel():
                try:
                    ours.set_result(theirs.result())
                except BaseException as error:
                    ours.set_exception(error)

        theirs.add_done_callback(settle)
        ours.add_done_callback(lambda ours: theirs.cancel() if ours.cancelled() else None)
        return ours

    def ship(self, data: object) -> Any:
        """Data as an argument of tasks: it goes from worker to worker, once to each, and not through the scheduler."""
        return self._client.scatter([data], hash=False, broadcast=True)[0]


def known(executor: Executor) -> Executor:
    """An executor of Dask's as one of ours; any other as it is."""
    client = getattr(executor, "_client", None)
    if hasattr(client, "scatter") and hasattr(client, "nthreads"):
        return DaskExecutor(client, getattr(executor, "_kwargs", {}))
    return executor
