"""Look at checkpoints of every format, and write others from them.

python scripts/checkpoint.py inspect CHECKPOINT
python scripts/checkpoint.py unshard CHECKPOINT [OUT]
python scripts/checkpoint.py convert CHECKPOINT OUT --to sharded|unsharded|safetensors|huggingface
python scripts/checkpoint.py merge_lora CHECKPOINT OUT
python scripts/checkpoint.py ema CHECKPOINT OUT
python scripts/checkpoint.py diff A B
python scripts/checkpoint.py average RUN --last 4 --out OUT
"""

import sys

from olmo.convert.command import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
