"""Look at a data set or mixture as training sees it: python scripts/dataset_visualize.py --help"""

import sys

from olmo.launch import run_command
from olmo.visualize.command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
