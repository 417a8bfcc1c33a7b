"""CUDA's streams, events and captures: work that waits in queues, and runs in no better order than is asked for."""

import collections
import threading

LOCK = threading.RLock()  # threads queue and run work one after the other
_UNFINISHED = set()  # late streams with work in their queues, whether anybody else still knows them or not


def current():
    """The thread's current stream."""
    return CURRENT.stream


def synchronize_all():
    """Wait for the device."""
    for stream in [*_UNFINISHED]:
        stream.synchronize()


class Stream:
    """A queue of work, equal to any other with its pointer, as CuPy's.

    If it `is_late`, what is queued runs when something waits for it, or step by step. Else, as on the null stream here,
    it runs at once and forces what it waits for, so that a host read finds it done.
    """

    def __init__(self, ptr, is_late=False):
        self.ptr, self.is_late = ptr, is_late
        self.queue = collections.deque()
        self.capture, self.frontier = None, frozenset()  # the graph that it is captured in, and its latest nodes there

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return self.ptr

    def use(self):
        """Make it the thread's current stream, as CuPy's does: without a way back."""
        CURRENT.stream = self

    def do(self, work, *needed):
        """Queue a call; what is `needed` lives as long as it waits."""
        if self.capture is not None:
            self.frontier = frozenset([self.capture.add(work, self.frontier)])
            return
        self._append(work, None, needed)

    def wait_event(self, event):
        """Later work comes after what the event marked when it was recorded last, if it was."""
        mark = event.mark
        if isinstance(mark, CapturedMark):
            if self.capture is None:
                assert not self.queue, "a stream joins a capture while its own work waits"
                self.capture = mark.capture
                mark.capture.streams.append(self)
            assert self.capture is mark.capture, "cudaErrorStreamCaptureMerge"
            self.frontier |= mark.frontier
        elif mark is not None:
            assert self.capture is None, "cudaErrorStreamCaptureIsolation"
            self._append(None, mark, ())

    def synchronize(self):
        with LOCK:
            self.run_while(lambda: self.queue)
            _UNFINISHED.discard(self)

    def _append(self, *entry):
        with LOCK:
            self.queue.append(entry)
            if self.is_late:
                _UNFINISHED.add(self)
            else:
                self.synchronize()

    @property
    def can_step(self):
        return bool(self.queue) and (self.queue[0][1] is None or self.queue[0][1].is_passed)

    def step(self):
        """Run what comes first, which waits for nothing."""
        assert self.can_step
        work, _, _ = self.queue.popleft()
        if work is not None:
            work()

    def run_while(self, condition):
        while condition():
            if not self.can_step:
                mark = self.queue[0][1]
                mark.stream.run_while(lambda mark=mark: not mark.is_passed)
            if condition():
                self.step()


class _Current(threading.local):
    """What `use` and `with` made current in a thread; the null stream at first."""

    def __init__(self):
        self.stream = Stream(0)
        self.entered = [self.stream]


CURRENT = _Current()


class Mark:
    """A place in a stream's queue."""

    def __init__(self, stream):
        self.stream, self.is_passed = stream, False

    def passed(self):
        self.is_passed = True


class CapturedMark(collections.namedtuple("CapturedMark", "capture frontier")):
    """A place in a graph that is being captured."""


class Event:
    """What was recorded last: a new place each time, so that who waits for an earlier one still does."""

    def __init__(self):
        self.mark = None

    def record(self, stream):
        if stream.capture is not None:
            self.mark = CapturedMark(stream.capture, stream.frontier)
        else:
            self.mark = Mark(stream)
            stream.do(self.mark.passed)

    def synchronize(self):
        """Wait for what was queued before it was recorded last."""
        mark = self.mark
        if mark is not None:
            with LOCK:
                mark.stream.run_while(lambda: not mark.is_passed)


class Capture:
    """A graph in the making: calls, and those that each comes after."""

    def __init__(self, origin):
        self.origin, self.streams, self.nodes = origin, [origin], []

    def add(self, work, before):
        self.nodes.append((work, before))
        return len(self.nodes) - 1

    def end(self):
        """The graph's launch. All that was captured must have come back to the stream where it began."""
        seen, waiting = set(), list(self.origin.frontier)
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += self.nodes[node][1]
        unjoined = [stream for stream in self.streams if not stream.frontier <= seen]
        for stream in self.streams:
            stream.capture, stream.frontier = None, frozenset()
        if unjoined:
            raise RuntimeError("cudaErrorStreamCaptureUnjoined: capturing stream has unjoined work")
        return self.launch

    def launch(self):
        """Each call after those that it must come after, and of several the one that was captured last."""
        done, left = set(), set(range(len(self.nodes)))
        while left:
            node = max(node for node in left if self.nodes[node][1] <= done)
            self.nodes[node][0]()
            done.add(node)
            left.remove(node)
