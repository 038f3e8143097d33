"""A page from evaluated runs: python scripts/eval_report.py --help"""

import sys

from olmo.eval.report.command import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
