"""Let a language model judge saved answers, captions above all: python scripts/judge.py --help"""

import sys

from olmo.eval.judges.command import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
