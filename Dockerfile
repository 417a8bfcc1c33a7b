# gpueinsum for GPU machines. CUDA comes from PyPI's wheels, the driver (for CUDA 13: branch R580 or later) from the host
# through the NVIDIA Container Toolkit.
#
#   docker build -t gpueinsum .
#   docker run --rm --gpus all gpueinsum                    # the GPU check: the doctor, then the tests on the GPU
#   docker run --rm --gpus all gpueinsum gpueinsum demo
#   docker run --rm --gpus all -v "$PWD:/data" gpueinsum gpueinsum run 'ij,jk->ik' /data/A.npy /data/B.npy --out /data/C.npy
FROM python:3.12.12-slim-bookworm

# The tests compile the kernels for the host, too.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 gpueinsum

COPY pyproject.toml README.md LICENSE /tmp/gpueinsum/
COPY gpueinsum /tmp/gpueinsum/gpueinsum
COPY kernels /tmp/gpueinsum/kernels
RUN pip install --no-cache-dir "/tmp/gpueinsum[cuda13,test]" \
    && rm -r /tmp/gpueinsum

# Beside the tests lies no source: what they test is the installed package.
WORKDIR /home/gpueinsum
COPY --chown=gpueinsum pyproject.toml ./
COPY --chown=gpueinsum tests tests
COPY --chown=gpueinsum benchmarks benchmarks
USER gpueinsum

CMD ["sh", "-c", "gpueinsum doctor --backend cuda && python -m pytest -m gpu"]
