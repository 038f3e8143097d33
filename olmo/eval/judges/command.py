"""`scripts/judge.py`: flags, the forecast that is shown when nothing may be sent, and one result folder after another."""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser, setup_logging

log = logging.getLogger(__name__)

BASE_URL = "OLMO_JUDGE_BASE_URL"
"""Environment variable that stands for --base_url."""
CACHE = "judge_cache"
"""Folder of the replies, below the result folder."""
STOPPED, LEFT_OVER = 3, 4

DESCRIPTION = """\
Let a language model judge saved answers: captions, free answers, and what the rules of TempCompass leave undecided.

    python scripts/judge.py RESULT_FOLDER
    python scripts/judge.py RESULT_FOLDER --model gpt-4.1-2025-04-14 --base_url https://api.openai.com/v1 --max_requests 2000

The first says what would be asked, and contacts nobody. Judgements are appended to judgements.jsonl in the result folder, then its
metrics are computed again. Started again, only what is missing is asked for."""

EPILOG = f"""\
Any server with the chat-completions protocol of OpenAI will do. Limits hold for one run of this command: before a request is sent,
the longest reply and its prompt (estimated, a token per 3 bytes) must fit. A request that was never answered counts in full.

exit status: 0 everything is judged (or nothing was to be sent), 1 an error, {STOPPED} a limit was reached,
{LEFT_OVER} some answers could not be judged; what was done is saved in every case.
"""


def build_parser(prog: str | None = None) -> CommandParser:
    from olmo.eval.judges import JUDGES

    parser = CommandParser(prog, DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="RESULT_FOLDER", help="folder with predictions.jsonl")
    add("--judge", choices=sorted(JUDGES), help="what is judged, and how (by the task of the folder)")
    add("--model", help="name of the judge at the server")
    add("--base_url", default=os.environ.get(BASE_URL) or None, help=f"address of the server, up to /v1 (${BASE_URL}; none: ask nobody)")
    add("--api_key_env", default="OPENAI_API_KEY", metavar="NAME", help="variable that holds the key; unset = no key is sent (%(default)s)")
    add("--parameters", default="{}", metavar="JSON", help='of every request, over {"temperature": 0, "max_tokens": ...}; null removes one')
    add("--max_requests", type=int, metavar="N", help="send at most N requests, repeated ones included")
    add("--max_tokens_total", type=int, metavar="N", help="use at most N tokens, of prompts and replies together")
    add("--max_cost", type=float, metavar="USD", help="spend at most so much, at the prices given")
    add("--price_prompt", type=float, metavar="USD", help="price of a million tokens of prompts")
    add("--price_reply", type=float, metavar="USD", help="price of a million tokens of replies")
    add("--requests_per_minute", type=float, metavar="N", help="send no more requests in a minute")
    add("--concurrency", type=int, default=4, metavar="N", help="requests at the same time (%(default)s)")
    add("--timeout", type=float, default=120.0, metavar="SECONDS", help="until a reply must be there (%(default)g)")
    add("--attempts", type=int, default=6, metavar="N", help="how often a request that fails is sent (%(default)s)")
    add("--cache", type=Path, metavar="FOLDER", help=f"replies, one file each; may be shared by result folders (RESULT_FOLDER/{CACHE})")
    add("--dry_run", action="store_true", help="say what would be sent, and contact nobody")
    add("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str], prog: str | None = None) -> argparse.Namespace:
    """Flags; what can be wrong with them is refused here."""
    from olmo.eval.judges.asker import OUTPUT_LIMITS, parameters_for

    args, overrides = build_parser(prog).parse_with_overrides(argv)
    if overrides:
        raise OLMoCliError(f"unknown option '--{overrides[0].partition('=')[0]}'")
    for name in ("max_requests", "max_tokens_total", "max_cost", "requests_per_minute", "concurrency", "timeout", "attempts"):
        if (value := getattr(args, name)) is not None and not value > 0:
            raise OLMoCliError(f"--{name}={value}: must be above 0")
    for name in ("price_prompt", "price_reply"):
        if (value := getattr(args, name)) is not None and not value >= 0:
            raise OLMoCliError(f"--{name}={value}: must not be negative")
    if args.max_cost is not None and (args.price_prompt is None or args.price_reply is None):
        raise OLMoCliError("--max_cost needs the prices of the model: --price_prompt and --price_reply, in USD per million tokens")
    if args.base_url is not None:
        args.base_url = args.base_url.rstrip("/").removesuffix("/chat/completions")
        if urlsplit(args.base_url).scheme not in ("http", "https") or not urlsplit(args.base_url).netloc:
            raise OLMoCliError(f"--base_url={args.base_url}: must be an address such as https://api.openai.com/v1")
        if args.model is None and not args.dry_run:
            raise OLMoCliError("--base_url needs --model: the name of the judge at that server")
    args.parameters = _parameters(args.parameters)
    if (args.max_tokens_total or args.max_cost) and not any(name in parameters_for(args.parameters, 1) for name in OUTPUT_LIMITS):
        raise OLMoCliError("--parameters: a limit of tokens or cost needs a longest reply: 'max_tokens' or 'max_completion_tokens'")
    return args


def _parameters(text: str) -> dict[str, Any]:
    from olmo.eval.judges.asker import OUTPUT_LIMITS

    try:
        given = json.loads(text)
    except ValueError as err:
        raise OLMoCliError(f"--parameters={text}: is not JSON ({err})") from None
    if not isinstance(given, dict):
        raise OLMoCliError(f"--parameters={text}: must be a JSON object")
    if fixed := sorted(set(given) & {"model", "messages", "stream", "n"}):
        raise OLMoCliError(f"--parameters: '{fixed[0]}' cannot be set here")
    for name in OUTPUT_LIMITS:
        if given.get(name) is not None and not (type(given[name]) is int and given[name] > 0):
            raise OLMoCliError(f"--parameters: '{name}' must be a whole number above 0")
    return given


def judge_name(folder: Path, named: str | None) -> str:
    """The judge named on the command line, or that of the folder's task."""
    from olmo.eval.judges import TASK_JUDGES
    from olmo.eval.judges.rescore import task_of

    if named is not None:
        return named
    task = task_of(folder)
    name = (task or "").partition(":")[0]
    if name not in TASK_JUDGES:
        why = f"its task {task} is scored without one" if task else "its settings.json names no task"
        raise OLMoCliError(f"{folder}: there is no judge for it by default ({why}); name one with --judge")
    return TASK_JUDGES[name]


def main(argv: Sequence[str]) -> int:
    """The command."""
    args = parse(argv)
    from olmo.eval.judges.run import make_plan

    console = setup_logging(debug=args.debug)
    names = [judge_name(folder, args.judge) for folder in args.folders]
    # Every folder is looked at before anything is sent: a mistake in the last one should not show after hours.
    plans = [make_plan(folder, name, args.model, args.parameters) for folder, name in zip(args.folders, names, strict=True)]
    for plan in plans:
        _tell(plan, args)
    if args.dry_run or args.base_url is None:
        log.info("nothing was sent%s", "" if args.dry_run else f": name a server with --base_url (or ${BASE_URL})")
        return 0
    return _judge_all(plans, args, console)


def _tell(plan, args: argparse.Namespace) -> None:
    """What is to be done in one folder, and what it takes."""
    requests, prompt, reply = plan.forecast()
    log.info("%s, judge '%s':", plan.folder, plan.judge_name)
    judged = f"; {plan.judged} are judged by {args.model} already" if args.model else ""
    decided = f"; {plan.decided} need no judge" if plan.decided else ""
    log.info("  %d answers to judge%s%s", len(plan.pending), judged, decided)
    if plan.pending:
        price = ((args.price_prompt or 0) * prompt + (args.price_reply or 0) * reply) / 1e6
        cost = "" if args.price_prompt is None and args.price_reply is None else f", about {price:.2f} USD"
        log.info("  about %d requests with %d tokens of prompts and %d of replies%s", requests, prompt, reply, cost)


def _judge_all(plans, args: argparse.Namespace, console) -> int:
    from olmo.eval.judges.asker import Asker, Patience
    from olmo.eval.judges.budget import Budget, Limits
    from olmo.eval.judges.endpoint import Endpoint
    from olmo.eval.judges.pace import Pace
    from olmo.eval.judges.reply_cache import ReplyCache
    from olmo.eval.judges.run import carry_out
    from olmo.eval.progress import ProgressLine

    endpoint = Endpoint(args.base_url, args.model, os.environ.get(args.api_key_env), args.timeout)
    prices = (args.price_prompt or 0.0, args.price_reply or 0.0)
    budget = Budget(Limits(args.max_requests, args.max_tokens_total, args.max_cost, *prices))
    pace, status = Pace(args.requests_per_minute), 0
    for plan in plans:
        cache = ReplyCache(args.cache or plan.folder / CACHE)
        asker = Asker(endpoint, cache, budget, pace, Patience(args.attempts), args.parameters)
        with ProgressLine(console, f"{plan.folder.name}, {plan.judge_name}") as progress:
            outcome = carry_out(plan, asker, args.concurrency, progress)
        log.info("%s: %d judged, %d replies could not be read", plan.folder, outcome.judged, outcome.unparsed)
        for example_id, why in list(outcome.failures.items())[:10]:
            log.warning("  %s has no judgement: %s", example_id, why)
        if outcome.failures:
            status = LEFT_OVER
            log.warning("  %d answers have no judgement; start the command again to ask for them", len(outcome.failures))
        _score_again(plan, args.model)
        if outcome.stopped:
            status = STOPPED
            log.warning("stopped: %s; what is judged is saved", outcome.stopped)
            break
    used = f"{budget.requests} requests, {budget.prompt_tokens} tokens of prompts, {budget.reply_tokens} of replies"
    log.info("sent: %s%s", used, f", {budget.cost:.4f} USD" if any(prices) else "")
    return status


def _score_again(plan, model: str) -> None:
    from olmo.eval.judges.rescore import rescore
    from olmo.eval.statistics import Score, format_table

    content = rescore(plan.folder, plan.judge_name, model)
    if content is None:
        log.warning("%s: there is no metrics.json, because its evaluation has not finished; the judgements are saved", plan.folder)
        return
    for line in format_table({name: Score.from_dict(raw) for name, raw in content["scores"].items()}):
        log.info("%s", line)
