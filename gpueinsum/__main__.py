"""`python -m gpueinsum`: the command line without the installed command."""

import sys

from gpueinsum.tools.cli import main

sys.exit(main())
