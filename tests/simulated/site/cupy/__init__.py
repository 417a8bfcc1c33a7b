"""The stand-in as `cupy`, for a process with this folder's parent on PYTHONPATH, and for all that it starts."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))

from simulated.cupy import install  # it lies there

install()
