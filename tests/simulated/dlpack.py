"""DLPack between the libraries of a simulated device."""

from . import streams

CUDA = 2  # DLPack's kDLCUDA
NULL_STREAM = 1  # its number for the null stream, which has no address


class Capsule:
    """Memory of a library's with work on its current stream, for whoever reads it on another."""

    waits = 0  # how often the one stream had to wait for the other

    def __init__(self, memory, current, consumer):
        assert consumer != 0, "Stream 0 is passed from a library that you are converting to"
        self.memory = memory
        if consumer not in (-1, current.ptr or NULL_STREAM):
            Capsule.waits += 1
            event = streams.Event()
            event.record(current)
            streams.at(consumer).wait_event(event)
