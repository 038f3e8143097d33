"""Fine-tune a video model (the Molmo2 name of `train_image_video_sft.py`: the same program).

    torchrun --nproc-per-node 8 launch_scripts/sft.py CHECKPOINT MIXTURE [flags] [--key=value ...]

`--help` lists the flags; any other word sets a config key. One process needs no torchrun.
"""

import sys

from olmo.launch import run_command
from olmo.train.sft import main

if __name__ == "__main__":
    sys.exit(run_command(lambda argv: main(argv, "sft.py", always_pack=True)))
