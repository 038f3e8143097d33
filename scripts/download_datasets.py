"""Fetch data sets, and say what of them is there: python scripts/download_datasets.py --help"""

import sys

from olmo.data_commands.download import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
