"""Evaluate checkpoints on video tasks.

    torchrun --nproc-per-node 8 launch_scripts/eval_molmo2.py CHECKPOINT [CHECKPOINT ..] --mode=video [--key=value ...]

`--help` lists the flags, `--list_tasks` the tasks. One process needs no torchrun.
"""

import sys
from collections.abc import Sequence

from olmo.eval import command
from olmo.launch import run_command


def main(argv: Sequence[str]) -> int:
    args, model_overrides, data_overrides = command.parse(argv, "eval_molmo2.py")
    if args.list_tasks:
        from olmo.eval.listing import describe, describe_everything

        print(describe_everything() if args.tasks is None else describe(args.tasks))
        return 0
    if args.print_config:
        print(command.printed_config(args, model_overrides, data_overrides), end="")
        return 0
    # Torch and everything above it is imported from here on, so that --help and mistakes answer at once.
    from olmo.distributed import distributed_world
    from olmo.eval.evaluate import run
    from olmo.launch import setup_logging

    with distributed_world() as world:
        console = setup_logging(world.rank, args.debug)
        if args.dry_run:
            if world.is_main:
                command.dry_run(args, model_overrides, data_overrides, console)
        else:
            run(args, model_overrides, data_overrides, world, console)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
