"""Pre-train a model on captions, pointing and text: the first stage.

    torchrun --nproc-per-node 8 launch_scripts/pretrain.py LLM [flags] [--key=value ...]

`--help` lists the flags; any other word sets a config key. One process needs no torchrun.
"""

import sys

from olmo.launch import run_command
from olmo.train.pretrain import main

if __name__ == "__main__":
    sys.exit(run_command(lambda argv: main(argv, "pretrain.py")))
