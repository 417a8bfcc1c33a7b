"""CUDA's streams, events and captures: work that waits in queues, and runs in no better order than is asked for."""

import collections
import threading
import weakref

LOCK = threading.RLock()  # threads queue and run work one after the other
_KNOWN = weakref.WeakValueDictionary()  # the first stream with each pointer
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
        self.capture = None  # the graph that it is captured in
        if ptr:
            _KNOWN.setdefault(ptr, self)

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return self.ptr

    def use(self):
        """Make it the thread's current stream, as CuPy's does: without a way back."""
        CURRENT.stream = self

    def is_capturing(self):
        return self.capture is not None

    def do(self, work, *needed):
        """Queue a call; what is `needed` lives as long as it waits."""
        if self.capture is not None:
            self.capture.works.append(work)
            return
        self._append(work, None, needed)

    def wait_event(self, event):
        """Later work comes after what the event marked when it was recorded last, if it was."""
        assert self.capture is None, "cudaErrorStreamCaptureIsolation"
        if event.mark is not None:
            self._append(None, event.mark, ())

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


def at(ptr):
    """The stream at an address, whichever library made it; the null stream, which is the host's, at none."""
    return _KNOWN.get(ptr) or Stream(0)


class _Current(threading.local):
    """What `use` and `with` made current in a thread; the null stream at first."""

    def __init__(self):
        self.stream = Stream(0)
        self.entered = [self.stream]


CURRENT = _Current()


def forget():
    """Streams and their work, as on a device of a new process."""
    CURRENT.__init__()
    _UNFINISHED.clear()


class Mark:
    """A place in a stream's queue."""

    def __init__(self, stream):
        self.stream, self.is_passed = stream, False

    def passed(self):
        self.is_passed = True


class Event:
    """What was recorded last: a new place each time, so that who waits for an earlier one still does."""

    def __init__(self):
        self.mark = None

    def record(self, stream):
        assert stream.capture is None, "an event is recorded while its stream captures"
        self.mark = Mark(stream)
        stream.do(self.mark.passed)

    def synchronize(self):
        """Wait for what was queued before it was recorded last."""
        mark = self.mark
        if mark is not None:
            with LOCK:
                mark.stream.run_while(lambda: not mark.is_passed)


class Capture:
    """A graph in the making: the work of one stream in its order."""

    def __init__(self, origin):
        self.origin, self.works = origin, []

    def end(self):
        """The graph's launch."""
        self.origin.capture = None
        return self.launch

    def launch(self):
        for work in self.works:
            work()
