"""Compare two evaluated runs: python scripts/compare_evals.py --help"""

import sys

from olmo.eval.compare_text import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
