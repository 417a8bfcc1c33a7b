"""Plans run by programs of a simulated device, for tests of what the programs are."""

from gpueinsum.backends.cuda.backend import CudaBackend


def run_on(device, plan, *hosts):
    """The outputs of a plan of host arrays, and its program."""
    arrays = [device.to_device(host) for host in hosts]
    backend = CudaBackend(device)
    return backend.bind(plan)(*arrays), backend.program(plan, [array.strides for array in arrays])


def operands_of(rng, plan):
    return [rng.integers(-3, 4, plan.shape(number)).astype(plan.dtype) for number in range(len(plan.inputs))]
