"""The L4 comparison as a script: `bench/l4/run.py [--quick]` is `python -m bench.l4 [--quick]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.l4.__main__ import main

main()
