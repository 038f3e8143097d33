"""Fine-tune a video model, with token scoring (`--use_temporal_video_olmo`) or without.

    torchrun --nproc-per-node 8 launch_scripts/train_image_video_sft.py CHECKPOINT MIXTURE [flags] [--key=value ...]

`--help` lists the flags; any other word sets a config key. One process needs no torchrun.
"""

import sys

from olmo.launch import run_command
from olmo.train.sft import main

if __name__ == "__main__":
    sys.exit(run_command(lambda argv: main(argv, "train_image_video_sft.py")))
