"""How much memory a training takes on each GPU, before it is started: python scripts/estimate_memory.py --help"""

import sys

from olmo.launch import run_command
from olmo.train.memory.command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
