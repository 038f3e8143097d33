"""What every command shares: its parser, errors as one sentence, log lines that go well with progress bars, naming a config.

Nothing heavy is imported here, so that `--help` and a mistyped option answer at once.
"""

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from olmo.config import parse_overrides, read_yaml
from olmo.config_files import config_names, find_config
from olmo.exceptions import OLMoCliError, OLMoConfigurationError, OLMoDataFileError, OLMoError, first_line
from olmo.leaving import ECHO_DELAY, among_others, is_echo, leave, note_cause


class CommandParser(argparse.ArgumentParser):
    """A parser whose complaints are errors of ours, and that can leave the words it does not know to the config."""

    def __init__(self, prog: str | None, description: str, epilog: str | None = None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False, formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        raise OLMoCliError(message)

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """(flags, `key=value` overrides)."""
        args, rest = self.parse_known_args(self._join_values(argv))
        return args, parse_overrides(rest)

    def _join_values(self, argv: Sequence[str]) -> list[str]:
        """Write `--key value` of every key that is no flag as `--key=value`, so that no value is taken for a positional."""
        words, joined = list(argv), []
        while words:
            word = words.pop(0)
            unknown = word.startswith("--") and "=" not in word and word not in self._option_string_actions
            if unknown and words and not words[0].startswith("--"):
                word = f"{word}={words.pop(0)}"
            joined.append(word)
        return joined


def run_command(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Run `main(argv)` and return the exit status; an error meant for the user is one line on stderr (for a data file of the
    user's own, one more for each place where it is wrong).

    With `--debug` among the words the traceback is shown too. Errors that every rank makes alike are printed by rank 0. A rank that
    fails does not return from here: see `olmo/leaving.py`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    status = _run(main, argv)
    if status and among_others():
        leave(status)
    return status


def _run(main: Callable[[Sequence[str]], int | None], argv: list[str]) -> int:
    rank = int(os.environ.get("RANK", "0"))
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as err:
        if among_others() and is_echo(err):
            sentence = f"another rank is gone: {first_line(err)}"
            print(f"error (rank {rank}): {sentence}", file=sys.stderr, flush=True)
            time.sleep(ECHO_DELAY)
        elif isinstance(err, OLMoError):
            sentence = " ".join(str(err).split())
            _print_error(err, rank, debug="--debug" in argv)
        elif among_others():
            sentence = f"{type(err).__name__}: {' '.join(str(err).split())}"
            traceback.print_exc()
        else:
            raise
        note_cause(sentence)
        return 1


def _print_error(err: OLMoError, rank: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    if rank == 0 or not isinstance(err, OLMoCliError | OLMoConfigurationError | OLMoDataFileError):
        where = f" (rank {rank})" if rank else ""
        lines = str(err).splitlines() if isinstance(err, OLMoDataFileError) else [str(err)]
        print(f"error{where}: " + "\n".join(" ".join(line.split()) for line in lines), file=sys.stderr, flush=True)


def setup_logging(rank: int = 0, debug: bool = False, stderr: bool = False) -> Any:
    """Send log lines through one rich console (so that they never tear a progress bar); returns the console.

    Rank 0 logs everything, the others only warnings, with their rank in front. `stderr`: where the output is a document for programs.
    """
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(self.format(record), soft_wrap=True, markup=False, highlight=False)

    handler = Handler()
    prefix = "" if rank == 0 else f"[rank {rank}] "
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("olmo").setLevel((logging.DEBUG if debug else logging.INFO) if rank == 0 else logging.WARNING)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if debug else logging.ERROR)
    return console


def raw_config(source: str) -> tuple[dict[str, Any], Path | None]:
    """What the first argument of a launcher stands for: a checkpoint folder, a YAML file or the name of a config.

    Returns the raw mapping and, for a checkpoint folder, the checkpoint itself (None otherwise).
    """
    path = Path(source)
    if path.is_dir() or "://" in source:
        from olmo.checkpoints import read_config, select_checkpoint

        folder = select_checkpoint(source)
        return read_config(folder), folder
    if path.suffix in (".yaml", ".yml"):
        return read_yaml(path), None
    if "/" not in source and source in config_names():
        return read_yaml(find_config(source)), None
    raise OLMoConfigurationError(
        f"'{source}' is neither a checkpoint folder, nor a YAML file, nor the name of a config ({', '.join(config_names())})"
    )
