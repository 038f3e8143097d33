"""One request, with all that can go wrong on the way: faults of the server, the budget, the pace, the cache."""

import email.utils
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from olmo.eval.judges.asker import Asker, Patience, Unanswered, parameters_for
from olmo.eval.judges.budget import Budget, BudgetSpent, Limits
from olmo.eval.judges.conversation import estimate_tokens
from olmo.eval.judges.endpoint import Endpoint, Refused
from olmo.eval.judges.pace import Pace, Stopped
from olmo.eval.judges.reply_cache import ReplyCache
from olmo.exceptions import OLMoEnvironmentError
from tests.eval.judges.judge_server import Fault

PROMPT = "<reference>\na car\n</reference>\n<answer>\na car\n</answer>"


def message(text: str = PROMPT) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def asker_of(server, tmp_path):
    def make(*, limits=None, per_minute=None, attempts=4, pause=0.01, timeout=0.3, key=None, parameters=None, cache="cache", url=None):
        endpoint = Endpoint(url or server.url, "m", key, timeout)
        budget = Budget(limits or Limits())
        return Asker(endpoint, ReplyCache(tmp_path / cache), budget, Pace(per_minute), Patience(attempts, pause), parameters)

    return make


def test_what_is_sent(server, asker_of):
    """Model, messages and parameters, to the path of the protocol; the key only where there is one, and never on disk."""
    reply = asker_of(key="secret", parameters={"top_p": 0.5}).ask(message(), 64)
    assert (reply.text, reply.cut, reply.prompt_tokens, reply.reply_tokens) == ("Correct", False, 100, 10)
    assert server.asked == [
        {"model": "m", "messages": message(), "temperature": 0, "max_tokens": 64, "top_p": 0.5, "path": "/v1/chat/completions"}
    ]
    asker_of(cache="other").ask(message(), 64)
    assert server.keys == ["Bearer secret", None]


def test_the_key_is_not_kept(server, asker_of, tmp_path):
    asker = asker_of(key="secret")
    asker.ask(message(), 64)
    assert all("secret" not in file.read_text() for file in tmp_path.rglob("*.json"))
    assert "secret" not in repr(asker.endpoint)


def test_parameters():
    assert parameters_for({}, 8) == {"temperature": 0, "max_tokens": 8}
    assert parameters_for({"temperature": None, "max_tokens": 99}, 8) == {"max_tokens": 99}
    assert parameters_for({"max_completion_tokens": 99, "temperature": 1}, 8) == {"temperature": 1, "max_completion_tokens": 99}


FAULTS = {
    "error 500": Fault(500, body=b"oops"),
    "busy": Fault(429, {"Retry-After": "0"}, b'{"error": {"message": "slow down", "code": "rate_limit"}}'),
    "no word": Fault(drop=True),
    "half a body": Fault(short=True),
    "silence": Fault(stall=5),
    "a byte now and then": Fault(drip=0.1),
    "not JSON": Fault(body=b"<html>nice try</html>"),
    "another JSON": Fault(body=b'{"choices": []}'),
    "no object": Fault(body=b"[1]"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes(server, asker_of, fault):
    """Twice, then the answer. The slow ones must not take longer than the timeout."""
    server.faults = [fault, fault]
    start = time.monotonic()
    assert asker_of(timeout=0.2).ask(message(), 64).text == "Correct"
    assert len(server.asked) == 3
    assert time.monotonic() - start < 1.5


def test_a_fault_that_stays(server, asker_of):
    server.always = lambda prompt: Fault(503, body=b"down for repair")
    with pytest.raises(Unanswered, match="answers 503: down for repair .attempt 4 of 4"):
        asker_of().ask(message(), 64)
    assert len(server.asked) == 4


def test_nobody_listens(server, asker_of):
    with pytest.raises(Unanswered, match="[Cc]onnection refused"):
        asker_of(url="http://127.0.0.1:9/v1", attempts=2).ask(message(), 64)


def test_pauses_double(server, asker_of):
    """Seen to fail with pauses of one length."""
    server.faults = [Fault(500, body=b"")] * 3
    asker_of(pause=0.05).ask(message(), 64)
    first, second, third = (b - a for a, b in zip(server.times, server.times[1:], strict=False))
    assert 0.05 <= first < second < third and third >= 0.2


def test_the_wish_of_the_server_is_kept(server, asker_of):
    """All threads wait, also those whose own request was not refused. Seen to fail with the one thread waiting alone."""
    server.faults = [Fault(429, {"Retry-After": "0.4"}, b"")]
    asker = asker_of()
    threads = [threading.Thread(target=asker.ask, args=(message(), 64))]
    threads[0].start()
    time.sleep(0.1)
    threads.append(threading.Thread(target=asker.ask, args=(message(PROMPT + "2"), 64)))
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(server.times) == 3 and min(server.times[1:]) - server.times[0] >= 0.39


def test_a_wish_as_a_date(server, asker_of):
    server.faults = [Fault(503, {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}, b"")]
    asker_of().ask(message(), 64)
    assert 0.9 <= server.times[1] - server.times[0] <= 2.1


def test_a_wish_beyond_reason_ends_the_request(server, asker_of):
    server.faults = [Fault(429, {"Retry-After": "86400"}, b"come tomorrow")]
    with pytest.raises(Unanswered, match="come tomorrow .*again in 86400 s"):
        asker_of().ask(message(), 64)
    assert len(server.asked) == 1


FINAL = {
    "key": (Fault(401, body=b'{"error": {"message": "bad key"}}'), OLMoEnvironmentError, "answers 401: bad key; is the key right"),
    "path": (Fault(404, body=b"not here"), OLMoEnvironmentError, "answers 404: not here; are --base_url .* and --model m right"),
    "money": (Fault(429, body=b'{"error": {"message": "no money", "code": "insufficient_quota"}}'), OLMoEnvironmentError, "no money"),
    "moved": (Fault(302, {"Location": "http://192.0.2.1/"}, b""), OLMoEnvironmentError, "points to http://192.0.2.1/; give the address"),
    "long": (Fault(400, body=b'{"error": "too long"}'), Refused, "answers 400: too long"),
}


@pytest.mark.parametrize(("fault", "error", "told"), FINAL.values(), ids=FINAL)
def test_a_refusal_is_not_repeated(server, asker_of, fault, error, told):
    """A redirect is not followed: the key is for the server that was named."""
    server.faults = [fault]
    with pytest.raises(error, match=told):
        asker_of(key="k").ask(message(), 64)
    assert len(server.asked) == 1


def test_replies_come_from_the_cache(server, asker_of, caplog, tmp_path):
    """The same request of another run; not that of another model, other parameters or another server."""
    asker_of().ask(message(), 64)
    again = asker_of()
    assert again.ask(message(), 64).text == "Correct" and (again.from_cache, again.answered, len(server.asked)) == (1, 0, 1)
    again.ask(message(), 65)
    asker_of(parameters={"seed": 1}).ask(message(), 64)
    asker_of(url=server.url.replace("127.0.0.1", "localhost")).ask(message(), 64)
    assert len(server.asked) == 4
    for file in tmp_path.rglob("*.json"):
        file.write_text(file.read_text()[:20])
    with caplog.at_level("WARNING"):
        asker_of().ask(message(), 64)
    assert len(server.asked) == 5 and "is not a saved reply" in caplog.text


def test_threads_with_one_request_send_it_once(server, asker_of):
    server.delay = 0.1
    asker = asker_of()
    with ThreadPoolExecutor(4) as pool:
        assert [r.text for r in pool.map(lambda _: asker.ask(message(), 64), range(4))] == ["Correct"] * 4
    assert len(server.asked) == 1


def test_requests_per_minute(server, asker_of):
    """Four threads, one request each 0.1 s."""
    asker = asker_of(per_minute=600)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: asker.ask(message(f"{PROMPT}{n}"), 64), range(5)))
    assert server.times[-1] - server.times[0] >= 0.38


def test_a_stop_wakes_who_waits(server, asker_of):
    asker = asker_of(pause=60)
    server.faults = [Fault(500, body=b"")]
    threading.Timer(0.1, asker.pace.stop.set).start()
    start = time.monotonic()
    with pytest.raises(Stopped):
        asker.ask(message(), 64)
    assert time.monotonic() - start < 2


# -- budget


def test_requests_are_limited_repeated_ones_too(server, asker_of):
    server.faults = [Fault(500, body=b"")]
    asker = asker_of(limits=Limits(requests=3))
    asker.ask(message(), 64)
    asker.ask(message(PROMPT + "2"), 64)
    with pytest.raises(BudgetSpent, match="--max_requests"):
        asker.ask(message(PROMPT + "3"), 64)
    assert len(server.asked) == asker.budget.requests == 3


def test_the_longest_reply_must_fit(server, asker_of):
    """The bill, not the worst case, counts afterwards: 110 tokens per request here. Seen to fail with reservations not given back."""
    worst = estimate_tokens(PROMPT) + 64
    asker = asker_of(limits=Limits(tokens=2 * 110 + worst))
    for n in range(3):
        asker.ask(message(PROMPT + " " * (n == 9)), 64 - n)
    assert asker.budget.prompt_tokens + asker.budget.reply_tokens == 330
    with pytest.raises(BudgetSpent, match="--max_tokens_total"):
        asker.ask(message(PROMPT), 60)
    assert len(server.asked) == 3


def test_cost(server, asker_of):
    limits = Limits(cost=0.001, price_prompt=1.0, price_reply=10.0)
    asker = asker_of(limits=limits)
    with pytest.raises(BudgetSpent, match="--max_cost"):
        for n in range(9):
            asker.ask(message(), 50 + n)
    assert asker.budget.cost == pytest.approx(len(server.asked) * (100 * 1 + 10 * 10) / 1e6)
    assert 1 <= len(server.asked) <= 4 and asker.budget.cost <= 0.001


def test_a_request_without_an_answer_counts_in_full(server, asker_of):
    """It may have been billed; a refusal was not. Without a count of the server tokens are estimated."""
    server.faults = [Fault(drop=True), Fault(500, body=b"")]
    server.usage = False
    asker = asker_of()
    asker.ask(message(), 64)
    prompt = estimate_tokens(PROMPT)
    assert (asker.budget.prompt_tokens, asker.budget.reply_tokens) == (2 * prompt, 64 + estimate_tokens("Correct"))


def test_who_does_not_fit_waits_for_room():
    """While a request is on its way, what it may give back is waited for. Seen to fail with an error at once."""
    budget = Budget(Limits(tokens=100))
    budget.reserve(10, 60)
    threading.Timer(0.1, budget.settle, args=((10, 60), (10, 5))).start()
    budget.reserve(10, 60)
    budget.settle((10, 60), (10, 5))
    budget.reserve(10, 60)
    results = []

    def late():
        try:
            budget.reserve(10, 60)
        except BudgetSpent as err:
            results.append(str(err))

    thread = threading.Thread(target=late)
    thread.start()
    time.sleep(0.05)
    assert not results
    budget.settle((10, 60), (10, 60))
    thread.join(timeout=5)
    assert results == ["the next request could exceed --max_tokens_total"]
    with pytest.raises(BudgetSpent):
        budget.reserve(0, 0)  # nothing is sent after the end was told


def test_thoughts_are_not_read(server, asker_of):
    server.faults = [Fault(text="<think>\nIncorrect?\nno\n</think>\nCorrect"), Fault(text="Corr", finish="length")]
    assert asker_of().ask(message(), 64).text.strip() == "Correct"
    assert asker_of().ask(message(), 65).cut


def test_a_saved_reply_tells_its_request(server, asker_of, tmp_path):
    asker_of().ask(message(), 64)
    (file,) = tmp_path.rglob("*.json")
    content = json.loads(file.read_text())
    assert content["request"]["messages"] == message() and content["reply"]["text"] == "Correct"
    assert not list(tmp_path.rglob("*.part"))
