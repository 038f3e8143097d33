"""Measure what pruning saves: python scripts/benchmark.py --help"""

import sys

from olmo.benchmark.command import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
