"""Accuracy against time and tokens: python scripts/sweep.py CHECKPOINT --tasks=... --frames 8 16 --topk 0 0.5 --output=FOLDER"""

import signal
import sys
from pathlib import Path

from olmo.eval.sweep.command import main
from olmo.launch import run_command

EVALUATE = Path(__file__).resolve().parents[1] / "launch_scripts" / "eval_molmo2.py"

if __name__ == "__main__":
    # A job that is ended must take the evaluation it has started along.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(run_command(lambda argv: main(argv, EVALUATE)))
