"""The training command, killed (SIGKILL) while one rank writes one file of one checkpoint.

python -m tests.train.killed FILE_END STEP RANK WORDS...
"""

import os
import signal
import sys
from contextlib import contextmanager

from olmo.checkpoints.stores import Store
from olmo.launch import run_command
from olmo.train.sft import main


def die_while_writing(end: str, step: str, rank: str) -> None:
    writing = Store.writing

    @contextmanager
    def dies(self, name):
        with writing(self, name) as stream:
            if name.endswith(end) and name.startswith(f"step{step}") and os.environ.get("RANK", "0") == rank:
                stream.write(b"half")
                stream.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            yield stream

    Store.writing = dies


if __name__ == "__main__":
    die_while_writing(*sys.argv[1:4])
    sys.exit(run_command(lambda argv: main(argv, "train_image_video_sft.py"), sys.argv[4:]))
