"""Judging a result folder: which answers still need a judgement, what that takes, and asking for them side by side."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo.eval.judges import JUDGES
from olmo.eval.judges.asker import Asker, Unanswered, parameters_for
from olmo.eval.judges.budget import BudgetSpent
from olmo.eval.judges.conversation import Judge, estimate_tokens, hold, rehearse
from olmo.eval.judges.endpoint import Refused
from olmo.eval.judges.merge import JudgementFile, Line, read_judgements, read_predictions
from olmo.eval.judges.pace import Stopped
from olmo.eval.judges.reply_cache import digest
from olmo.eval.metrics.metric import Record
from olmo.exceptions import OLMoEnvironmentError

MOST_FAILURES = 3
"""Answers left without a judgement, with no reply in between, after which the server counts as gone."""


@dataclass(frozen=True)
class Pending:
    """An answer that needs a judgement."""

    record: Record
    prompt_sha: str
    requests: int
    """As rehearsed with typical replies."""
    prompt_tokens: int
    reply_tokens: int


@dataclass
class Plan:
    """What is to be done in a folder."""

    folder: Path
    judge_name: str
    judge: Judge
    pending: list[Pending]
    judged: int
    """Answers that this model has judged already."""
    decided: int
    """Answers that need no judge."""

    def forecast(self) -> tuple[int, int, int]:
        """About how many requests, tokens of prompts and tokens of replies."""
        totals = [(p.requests, p.prompt_tokens, p.reply_tokens) for p in self.pending]
        return tuple(sum(column) for column in zip(*totals, strict=True)) if totals else (0, 0, 0)


@dataclass
class Outcome:
    """What has come of a plan."""

    judged: int = 0
    unparsed: int = 0
    """Replies that could not be read."""
    failures: dict[str, str] = field(default_factory=dict)
    """example_id -> why there is no judgement."""
    stopped: str | None = None
    """The limit that ended it."""


def make_plan(folder: Path, judge_name: str, model: str | None, parameters: Mapping[str, Any]) -> Plan:
    """Look at the saved answers and judgements. Nothing is asked; mistakes in the records show here."""
    records = read_predictions(folder)
    judge = JUDGES[judge_name](records)
    needed = [_rehearsed(r, judge, judge_name, parameters) for r in records if judge.applies(r)]
    pending = _without_judgement(needed, folder, judge_name, model)
    return Plan(folder, judge_name, judge, pending, len(needed) - len(pending), len(records) - len(needed))


def _without_judgement(needed: Sequence[Pending], folder: Path, judge_name: str, model: str | None) -> list[Pending]:
    known = {(x.example_id, x.prompt_sha) for x in read_judgements(folder) if (x.judge, x.model) == (judge_name, model)}
    return [p for p in needed if (p.record["example_id"], p.prompt_sha) not in known]


def _rehearsed(record: Record, judge: Judge, judge_name: str, parameters: Mapping[str, Any]) -> Pending:
    questions = rehearse(judge.converse(record))
    asked = [(q.prompt, parameters_for(parameters, q.max_tokens)) for q in questions]
    tokens = (sum(estimate_tokens(q.prompt) for q in questions), sum(estimate_tokens(q.typical) for q in questions))
    return Pending(record, digest(judge_name, asked), len(questions), *tokens)


def carry_out(plan: Plan, asker: Asker, concurrency: int, progress: Callable[[int, int], None] = lambda done, total: None) -> Outcome:
    """Ask for every judgement that is pending; each is written as soon as it is there.

    Ends early when the budget is spent (`Outcome.stopped`), when the server is gone or refuses everything (an error), and on Ctrl-C: then
    no further request is sent, and those on their way are waited for and saved.
    """
    with closing(JudgementFile(plan.folder)) as file, ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as pool:
        pending = _without_judgement(plan.pending, plan.folder, plan.judge_name, asker.endpoint.model)  # after waiting for another process
        run = _Run(file, asker, len(pending), progress)
        futures = {pool.submit(_judge, plan, p, asker): p for p in pending}
        try:
            for future in as_completed(list(futures)):
                run.take(futures.pop(future), future)
        except BaseException:
            asker.pace.stop.set()
            for future, left in futures.items():
                run.take(left, future)
            raise
    if run.error:
        raise run.error
    return run.outcome


class _Run:
    """Takes what the threads bring, in the thread that writes."""

    def __init__(self, file: JudgementFile, asker: Asker, total: int, progress: Callable[[int, int], None]) -> None:
        self.file, self.asker, self.total, self.progress = file, asker, total, progress
        self.outcome = Outcome()
        self.error: OLMoEnvironmentError | None = None
        self._silent, self._answered = 0, asker.answered
        progress(0, self.total)

    def take(self, pending: Pending, future: "Future[Line]") -> None:
        """Write a judgement, or note why there is none; decides whether to go on."""
        outcome = self.outcome
        try:
            line = future.result()
            self.file.append(line)
        except Stopped:
            return
        except BudgetSpent as err:
            outcome.stopped = str(err)
        except OLMoEnvironmentError as err:
            self.error = self.error or err
        except (Unanswered, Refused) as err:
            outcome.failures[pending.record["example_id"]] = str(err)
            self._silent = self._silent + 1 if self.asker.answered == self._answered else 1
            self._answered = self.asker.answered
            if self._silent >= MOST_FAILURES:
                told = f"no reply to {self._silent} answers in a row; the last failed because: {err}"
                self.error = self.error or OLMoEnvironmentError(told)
        else:
            outcome.judged += 1
            outcome.unparsed += line.unparsed
        if self.error or outcome.stopped:
            self.asker.pace.stop.set()
        self.progress(outcome.judged + len(outcome.failures), self.total)


def _judge(plan: Plan, pending: Pending, asker: Asker) -> Line:
    judgement, unparsed = hold(plan.judge.converse(pending.record), asker.ask)
    model = asker.endpoint.model
    return Line(pending.record["example_id"], plan.judge_name, model, judgement, pending.prompt_sha, unparsed)
