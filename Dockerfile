# gpueinsum for GPU machines, and everything that it is measured beside: doctor, tests, compute-sanitizer, measurements.
#
#   docker build -t gpueinsum .
#   mkdir -p results                                  # by yourself, else it is root's
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD/results:/results" gpueinsum
#   docker run --rm --gpus all gpueinsum python -m benchmarks.container --minutes 3 --stages tests suite
#   docker run --rm --gpus all gpueinsum gpueinsum demo
#
# CUDA 13.0 comes from PyPI's wheels, the driver (branch R580 or later) from the host, through the NVIDIA Container
# Toolkit. Without a GPU, and without `--gpus all`, it says so, and tests and measures on the CPU. All of it takes nine
# and a half minutes; `--minutes 60` gives every stage more.
#
# Pinned, with all that they ask for, in benchmarks/constraints.txt: numpy 2.5.5, opt_einsum 3.4.0, cupy-cuda13x 14.2.0,
# nvidia-cublas 13.1.1.3, cutensor-cu13 2.8.1, cuquantum-python-cu13 26.9.0, cutensornet-cu13 2.14.0, torch 2.14.1,
# jax 0.12.0.1, cotengra 0.8.3, matplotlib 3.11.2, pytest 9.2.0.
# Size: 8.2 GiB uncompressed, fetched as 3.9 GB of wheels: CUDA 3.4 GiB, PyTorch with Triton 2.0, JAX 0.7, cuTensorNet
# and the rest of cuQuantum 0.4, cuTENSOR 0.3, CuPy 0.2, other wheels 0.4, g++ 0.3, the base 0.3.
#
# No Docker was at hand: every line was replayed in a bare Debian trixie with Debian's Python 3.13.5, in a venv at
# /usr/local, where the base has a Python of its own. The sizes are of that root.
FROM python:3.13.14-slim-trixie

# The tests compile the kernels for the host, too.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# Nobody in particular, so that any --user will do: whoever it is writes caches to /tmp, and what is found to /results.
RUN useradd --uid 1000 gpueinsum \
    && mkdir --mode=1777 /results

# First what takes gigabytes: it is fetched again only when a pin changes, never for a change of code.
COPY benchmarks/constraints.txt /opt/gpueinsum/benchmarks/
RUN pip install --no-cache-dir --requirement /opt/gpueinsum/benchmarks/constraints.txt

COPY pyproject.toml README.md LICENSE /tmp/source/
COPY gpueinsum /tmp/source/gpueinsum
COPY kernels /tmp/source/kernels
RUN pip install --no-cache-dir --constraint /opt/gpueinsum/benchmarks/constraints.txt "/tmp/source[peers-cuda13,sanitizer-cuda13,test]" \
    && pip check \
    && rm -r /tmp/source

# Beside the tests lies no source: what they test is the installed package.
WORKDIR /opt/gpueinsum
COPY pyproject.toml README.md ./
COPY tests tests
COPY benchmarks benchmarks

ENV HOME=/tmp USER=gpueinsum
USER gpueinsum
STOPSIGNAL SIGINT
CMD ["python", "-m", "benchmarks.container"]
