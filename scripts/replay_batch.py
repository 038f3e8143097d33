"""Where a batch of `bad_batches/` goes wrong: python scripts/replay_batch.py --help"""

import sys

from olmo.launch import run_command
from olmo.train.bad_batches.replay import main

if __name__ == "__main__":
    sys.exit(run_command(main))
