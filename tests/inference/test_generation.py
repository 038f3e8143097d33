"""Decoding with a cache, in batches, against one full pass per token for one example."""

from dataclasses import replace

import pytest
import torch

from olmo.batch import Batch
from olmo.exceptions import OLMoConfigurationError
from olmo.inference import generation
from olmo.inference.generation import SamplingConfig, choose, generate
from tests.models.builders import VOCAB, Example, batch, model

QUESTIONS = [Example(4, (3,), 1), Example(2, (6,), 2), Example(0, (5,), 3), Example(5, (2,), 4)]
STEPS = 6
VARIANTS = {
    "pruned": dict(),
    "renumbered": dict(compact_positions=True),
    "causal": dict(bi_directional_attn=None),
    "unpruned": dict(vit=dict(prune=False)),
    "olmo3": dict(llm=dict(n_heads=4, n_kv_heads=4, head_dim=8, attention_layer_norm_type="olmo", norm_after=True, weight_tying=False)),
}


def questions(examples: list[Example], extra: int = 0) -> Batch:
    return batch(*[[e] for e in examples], extra=extra, subsegments=False)


def one_by_one(m, example: Example, steps: int) -> list[int]:
    """The slow way: no cache, no batch; the whole shortened sequence again for every token."""
    with torch.no_grad():
        b = questions([example])
        vision = m.encode_vision(b)
        b = m.shorten(b, vision, None)
        ids, positions, out = b.input_ids, b.position_ids, []
        for _ in range(steps):
            step = Batch(ids, positions, tuple(replace(row, examples=()) for row in b.layout))
            logits = m.transformer.logits(m._language_model(step, vision)[:, -1])
            out.append(logits.argmax(-1).item())
            ids = torch.cat([ids, torch.tensor([[out[-1]]])], 1)
            positions = torch.cat([positions, positions[:, -1:] + 1], 1)
    return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_batched_and_cached_equals_one_by_one(variant):
    """Videos of different lengths, a question without a video, padding in every tensor. Seen to fail with new tokens placed
    behind the padding, and with positions that continue from the length instead of the last position."""
    m = model(**VARIANTS[variant])
    expected = [one_by_one(m, e, STEPS) for e in QUESTIONS]
    assert len({tuple(e) for e in expected}) > 1
    for examples in (QUESTIONS, QUESTIONS[::-1]):
        output = generate(m, questions(examples, extra=3), STEPS)
        wanted = expected if examples is QUESTIONS else expected[::-1]
        assert output.token_ids == wanted
    for example, wanted in zip(QUESTIONS, expected, strict=True):
        assert generate(m, questions([example]), STEPS).token_ids == [wanted]


def test_logits_of_every_step():
    """Not only the best token: logits of prefill and of each step, batched against alone. Seen to fail with a cache slot
    of another row overwritten."""
    m = model()
    given = torch.randint(0, VOCAB, (4, 5))
    with torch.no_grad():
        together, state, _ = m.prefill(questions(QUESTIONS), 5)
        together = [together] + [m.decode_step(given[:, t], state) for t in range(5)]
        for i, example in enumerate(QUESTIONS):
            alone, state, _ = m.prefill(questions([example]), 5)
            alone = [alone] + [m.decode_step(given[i : i + 1, t], state) for t in range(5)]
            for a, b in zip(alone, together, strict=True):
                torch.testing.assert_close(a[0], b[i], atol=1e-5, rtol=1e-5)


def test_a_prompt_with_branches_continues_its_last_branch():
    """The answer sees the shared prefix and its own branch only. Seen to fail with new tokens in branch 0."""
    m = model()
    b = batch([Example(2, (3, 4), 1)])
    other = batch([Example(2, (3, 4), 1)])
    first = (other.subsegment_ids == 0) & (other.input_ids >= 0)
    other.input_ids[first] = (other.input_ids[first] + 7) % VOCAB
    with torch.no_grad():
        results = []
        for prompt in (b, other):
            logits, state, _ = m.prefill(prompt, 2)
            results.append([logits, m.decode_step(torch.tensor([5]), state), m.decode_step(torch.tensor([9]), state)])
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_end_token_and_bookkeeping():
    """Rows stop at the end token, which is not part of the answer; counts before and after pruning; mode restored."""
    m = model().train()
    plain = generate(m, questions(QUESTIONS), STEPS)
    end = plain.token_ids[0][2]
    stopped = generate(m, questions(QUESTIONS), STEPS, eos_id=end)
    for before, after in zip(plain.token_ids, stopped.token_ids, strict=True):
        assert after == before[: before.index(end)] if end in before else after == before
    assert m.training
    dropped = [18, 9, 0, 22]
    assert [a - b for a, b in zip(plain.tokens_before, plain.tokens_after, strict=True)] == dropped
    assert set(plain.seconds) == {"vision", "prefill", "decode"} and all(s >= 0 for s in plain.seconds.values())
    assert plain.vision.keep_rows.sum(1).tolist() == list(plain.vision.kept_per_row)
    always = generate(m, questions(QUESTIONS[:1]), 50, eos_id=plain.token_ids[0][0])
    assert always.token_ids == [[]]


@pytest.mark.parametrize("sampling", [SamplingConfig(ngram_size=1), SamplingConfig(temperature=1.0, ngram_size=1)])
def test_looking_for_the_end_less_often_changes_no_answer(sampling, monkeypatch):
    """As on a GPU, where looking waits for the device. Seen to fail with rows not cut at their end."""
    m = model()

    def answers(every: int, examples: list[Example], end: int | None):
        monkeypatch.setitem(generation.CHECK_EVERY, "cpu", every)
        return generate(m, questions(examples), 20, end, sampling, torch.Generator().manual_seed(1))

    for examples in (QUESTIONS[:1], QUESTIONS):
        end = answers(1, examples, None).token_ids[0][4]
        results = [answers(every, examples, end) for every in (1, 3, 16, 100)]
        assert len(results[0].token_ids[0]) == 4
        assert all(r.token_ids == results[0].token_ids for r in results)
        if len(examples) == 1:
            assert [r.steps for r in results] == [4, 5, 15, 19]


def test_a_step_stays_where_it_is():
    """What a CUDA graph needs: the same memory for the cache and the state in every step, and slots and positions that move in
    place. Seen to fail with `positions = positions + 1`."""
    m = model()
    with torch.no_grad():
        _, state, _ = m.prefill(questions(QUESTIONS), 21)
        tensors = [state.positions, state.subsegments, state.cache.slots]
        tensors += [t for layer in state.cache.layers for t in (layer.keys, layer.values)]
        before = [(t.data_ptr(), t.shape) for t in tensors]
        positions, slots = state.positions.clone(), state.cache.slots.clone()
        for _ in range(20):
            logits = m.decode_step(torch.full((4,), 5), state)
        assert logits.shape == (4, VOCAB)
    now = [state.positions, state.subsegments, state.cache.slots, *(t for c in state.cache.layers for t in (c.keys, c.values))]
    assert all(a is b for a, b in zip(tensors, now, strict=True))
    assert [(t.data_ptr(), t.shape) for t in now] == before
    assert torch.equal(state.positions, positions + 20) and torch.equal(state.cache.slots, slots + 20)


def test_a_compiled_step_is_one_graph():
    """20 steps, one graph, no break, the same tokens. Seen to fail (two graphs and more) with the cache cut to the longest row."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    m, eager = model(), model()
    with torch.no_grad():
        runs = []
        for step in (torch.compile(m.decode_step, backend="aot_eager", fullgraph=True), eager.decode_step):
            logits, state, _ = eager.prefill(questions(QUESTIONS), 21)
            ids = [logits.argmax(-1)]
            for _ in range(20):
                ids.append(step(ids[-1], state).argmax(-1))
            runs.append(torch.stack(ids))
    assert torch.equal(*runs)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    torch._dynamo.reset()


@pytest.mark.parametrize("requests", [8, 32])
def test_many_requests_at_once(requests):
    """Videos of 0 to 5 frames; the times of the three parts are reported apart. Seen to fail with the answers of all rows
    behind the longest prompt."""
    m = model()
    asked = [replace(QUESTIONS[i % 4], seed=i) for i in range(requests)]
    output = generate(m, questions(asked), 5)
    assert output.steps == 4 and all(output.seconds[part] > 0 for part in ("vision", "prefill", "decode"))
    for i in (0, 5, requests - 1):
        assert output.token_ids[i] == generate(m, questions([asked[i]]), 5).token_ids[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_step_gives_the_same_tokens():
    m = model().cuda()
    b = questions(QUESTIONS).to("cuda")
    assert generate(m, b, 20, capture=True).token_ids == generate(m, b, 20, capture=False).token_ids


def test_capturing_needs_a_gpu():
    with pytest.raises(OLMoConfigurationError, match="decoding can be captured on CUDA devices only, and the model is on cpu"):
        generate(model(), questions(QUESTIONS[:1]), 3, capture=True)


def test_sampling_is_reproducible_and_follows_the_distribution():
    """Same generator state, same tokens; frequencies of 20,000 draws. Seen to fail with the temperature multiplied."""
    m = model()
    sampling = SamplingConfig(temperature=1.5, top_k=20, top_p=0.9)
    draws = [generate(m, questions(QUESTIONS), STEPS, None, sampling, torch.Generator().manual_seed(s)).token_ids for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    none = torch.zeros(20_000, 0, dtype=torch.long)
    ids = choose(logits.expand(20_000, -1), none, SamplingConfig(temperature=2.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(ids.bincount(minlength=4) / 20_000, (logits[0] / 2).softmax(-1), atol=0.015, rtol=0)


def test_top_k_and_nucleus_keep_what_they_say():
    """Only the best k; the smallest set that reaches p. Seen to fail with the token that crosses p left out."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(2000, -1)
    none = torch.zeros(2000, 0, dtype=torch.long)

    def drawn(**kwargs) -> set[int]:
        return set(choose(logits, none, SamplingConfig(temperature=1.0, **kwargs), torch.Generator().manual_seed(0)).tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {0, 1} and drawn(top_k=10) == {0, 1, 2, 3}
    assert drawn(top_p=0.5) == {0} and drawn(top_p=0.6) == {0, 1} and drawn(top_p=0.9) == {0, 1, 2}


def test_penalties_and_ngrams():
    """Against the definitions on small numbers; greedy stays greedy with n-gram blocking."""
    logits = torch.tensor([[2.0, 1.9, 1.0]])
    seen = torch.tensor([[0, 0, 1]])
    log_probs = logits.log_softmax(-1)[0]
    assert choose(logits, seen, SamplingConfig(), None).item() == 0
    expected = torch.stack([log_probs[0] - 2, log_probs[1] - 1, log_probs[2]]).argmax()
    assert choose(logits, seen, SamplingConfig(frequency_penalty=1.0), None) == expected
    expected = torch.stack([log_probs[0] * 3, log_probs[1] * 3, log_probs[2]]).argmax()
    assert choose(logits, seen, SamplingConfig(repetition_penalty=3.0), None) == expected
    bigram = SamplingConfig(ngram_size=2)
    assert choose(logits, torch.tensor([[1, 0, 2, 1]]), bigram, None).item() == 1  # 1 0 was there, so not 0 again
    assert choose(logits, torch.tensor([[0, 2, 1]]), bigram, None).item() == 0
    assert choose(logits, torch.tensor([[0]]), SamplingConfig(ngram_size=1), None).item() == 1
    m = model()
    ids = generate(m, questions(QUESTIONS[:1]), 20, sampling=SamplingConfig(ngram_size=2)).token_ids[0]
    pairs = list(zip(ids, ids[1:], strict=False))
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    "bad", [dict(temperature=-1.0), dict(top_p=0.0), dict(temperature=1.0, top_k=0), dict(ngram_size=0), dict(top_p=0.9), dict(top_k=5)]
)
def test_settings_that_contradict_are_refused(bad):
    with pytest.raises(OLMoConfigurationError, match="sampling"):
        generate(model(), questions(QUESTIONS[:1]), 1, sampling=SamplingConfig(**bad))
    with pytest.raises(OLMoConfigurationError, match="max_new_tokens"):
        generate(model(), questions(QUESTIONS[:1]), 0)
