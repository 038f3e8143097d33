"""Look at a training run, also while it goes on: python scripts/plot_run.py --help"""

import sys

from olmo.launch import run_command
from olmo.visualize.run_command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
