"""The decoder's parts against plain formulas; `tests/oracles/test_transformers_decoders.py` compares all of it with transformers."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.attention_mask import dense_mask, token_attributes
from olmo.nn.kv_cache import KVCache
from olmo.nn.llm import Embedding, LlmConfig, OutputHead, ResidualDropout, SequentialBlock, Transformer
from olmo.nn.llm_config import ActivationCheckpoint

SMALL = dict(
    d_model=32, n_heads=4, n_layers=4, mlp_hidden_size=96, rope=True, layer_norm_type="rms", layer_norm_eps=1e-6, include_bias=False,
    attention_layer_norm=True, residual_dropout=0.0, embedding_dropout=0.0, vocab_size=50, embedding_size=50, additional_vocab_size=16,
    init_std=0.2,
)  # fmt: skip


def build(**kwargs) -> Transformer:
    llm = Transformer(LlmConfig.from_dict(SMALL | kwargs))
    llm.reset_parameters()
    return llm.eval()


def run(llm: Transformer, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """Causal logits [B, S, V]."""
    tokens = token_attributes(ids, None)
    positions = tokens.index if positions is None else positions
    hidden = llm(llm.embed(ids), positions, dense_mask(tokens, tokens, None))
    return llm.logits(hidden.flatten(0, 1)).view(*ids.shape, -1)


def test_listed_layers_can_be_the_unscaled_ones():
    """`sliding_attention_rope_scaling` exchanges the roles."""
    config = dict(rope_type="yarn", rope_factor=8.0, rope_original_max_position_embeddings=64, full_attention_layers=[1, 3])
    plain = LlmConfig.from_dict(SMALL | config)
    swapped = LlmConfig.from_dict(SMALL | config | dict(sliding_attention_rope_scaling=True))
    everywhere = LlmConfig.from_dict(SMALL | config | dict(full_attention_layers=None))
    assert [str(plain.rope_settings(i).type) for i in range(4)] == ["default", "yarn"] * 2
    assert [str(swapped.rope_settings(i).type) for i in range(4)] == ["yarn", "default"] * 2
    assert [str(everywhere.rope_settings(i).type) for i in range(4)] == ["yarn"] * 4


def test_cached_tokens_equal_the_full_pass():
    """Right-padded rows of different lengths, several decoded tokens. Seen to fail with new keys written to the slot
    of the longest row."""
    llm = build(n_kv_heads=2, attention_layer_norm_type="qwen3", head_dim=16)
    lengths, steps = (9, 4, 7), 5
    full = torch.randint(0, 50, (3, 14))
    with torch.no_grad():
        expected = run(llm, full)
        ids = full[:, :9].clone()
        for b, n in enumerate(lengths):
            ids[b, n:] = -1
        tokens = token_attributes(ids, None)
        cache = KVCache(llm.config.n_layers, 9 + steps)
        hidden = llm(llm.embed(ids), tokens.index, dense_mask(tokens, tokens, None), cache)
        slots = torch.tensor(lengths)
        actual = [llm.logits(hidden[torch.arange(3), slots - 1])]
        keys = token_attributes(torch.zeros(3, 9 + steps, dtype=torch.long), None)
        for _ in range(steps):
            cache.slots = slots
            query = keys.map(lambda t, at=slots[:, None]: t.gather(1, at))
            new = full.gather(1, slots[:, None])
            hidden = llm(llm.embed(new), slots[:, None], dense_mask(query, keys, None), cache)
            actual.append(llm.logits(hidden[:, 0]))
            slots = slots + 1
    for t, logits in enumerate(actual):
        wanted = torch.stack([expected[b, n - 1 + t] for b, n in enumerate(lengths)])
        torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


def test_special_tokens_have_their_own_rows():
    """Look-up in two tables equals look-up in the concatenated one, in value and gradient. Seen to fail with ids at the
    border read from the wrong table."""
    wte = Embedding(10, 4, 3)
    for parameter in wte.parameters():
        nn.init.normal_(parameter)
    ids = torch.tensor([[0, 9, 10, 13, 9]])
    together = torch.cat([wte.embedding, wte.new_embedding])
    assert torch.equal(wte(ids), together[ids])
    pairs = [torch.autograd.grad(out.square().sum(), list(wte.parameters())) for out in (wte(ids), together[ids])]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_head_rows_and_scaling():
    """Extra rows of the head follow the base rows; `scale_logits` and `normalize_input_embeds` are powers of the width."""
    head = OutputHead(5, 2, 3, bias=True)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    hidden = torch.randn(4, 3)
    expected = torch.cat([hidden @ head.weight.T + head.bias, hidden @ head.new_weight.T], dim=1)
    torch.testing.assert_close(head(hidden), expected)
    llm, scaled = build(), build(scale_logits=True)
    scaled.load_state_dict(llm.state_dict())
    hidden = torch.randn(4, 32)
    torch.testing.assert_close(scaled.logits(hidden), llm.logits(hidden) / math.sqrt(32))
    embedded = build(n_layers=0, normalize_input_embeds=True)
    x = torch.randn(1, 2, 32)
    torch.testing.assert_close(embedded(x, torch.zeros(1, 2, dtype=torch.long), None), x * math.sqrt(32))


def test_the_two_parts_of_the_vocabulary_are_never_joined():
    """Nothing of the size of the whole matrix is made, for logits or for the loss. Seen to fail with `torch.cat` of the two."""
    head = OutputHead(300, 20, 64, bias=False)
    for p in head.parameters():
        nn.init.normal_(p)
    made, own = [], {p.data_ptr() for p in head.parameters()}  # views of the parameters are no copies

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.data_ptr() not in own)
            return out

    hidden, labels, weights = torch.randn(3, 64), torch.tensor([1, 299, 319]), torch.ones(3)
    with torch.no_grad(), Sizes():
        logits = head(hidden)
        loss = head(hidden, labels, weights)
    assert max(made) < 320 * 64 // 10
    expected = hidden @ torch.cat([head.weight, head.new_weight]).T
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss.ce, nn.functional.cross_entropy(expected, labels, reduction="sum"))


def test_no_extra_vocabulary_is_one_plain_table():
    llm = build(additional_vocab_size=None)
    assert [n for n, _ in llm.named_parameters() if n.startswith("wte")] == ["wte.weight"]
    assert run(llm, torch.randint(0, 50, (1, 4))).shape == (1, 4, 50)


def test_response_dropout_only_on_responses():
    """Rates per token, inverted scaling; ordinary dropout without a response rate. Seen to fail with the mask inverted."""
    x = torch.ones(1, 4, 20_000)
    response = torch.tensor([[False, False, True, True]])
    dropped = ResidualDropout(0.0, 0.25)(x, response)
    assert torch.equal(dropped[:, :2], x[:, :2])
    assert (dropped[:, 2:] == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(dropped[:, 2:].max(), torch.tensor(1 / 0.75))
    both = ResidualDropout(0.5, 0.1)(x, response)
    assert (both[:, :2] == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (both[:, 2:] == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    plain = ResidualDropout(0.5, 0.0)(x, response)
    assert (plain[:, 2:] == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert ResidualDropout(0.5, 0.5).eval()(x, response) is x
    assert ResidualDropout(0.0, 0.0)(x, response) is x


def test_initialisation():
    """Standard deviations of the published initialisation, from uninitialised memory. Seen to fail with attn_out scaled
    like ff_out."""
    llm = Transformer(LlmConfig.from_dict(SMALL | dict(d_model=256, n_heads=4, n_layers=8, init_std=0.02, weight_tying=False)))
    for parameter in llm.parameters():
        nn.init.constant_(parameter, float("nan"))
    llm.reset_parameters()
    std = {n: p.std().item() for n, p in llm.named_parameters()}
    assert std["blocks.3.attn_out.weight"] == pytest.approx(0.02, rel=0.05)
    assert std["blocks.3.att_proj.weight"] == pytest.approx(0.02, rel=0.05)
    assert std["blocks.3.ff_out.weight"] == pytest.approx(0.02 / 4, rel=0.05)
    assert std["wte.embedding"] == pytest.approx(0.02, rel=0.05) and std["ff_out.weight"] == pytest.approx(0.02, rel=0.05)
    assert all(torch.equal(p, torch.ones_like(p)) for n, p in llm.named_parameters() if "norm" in n or "ln_f" in n)
    cut = build(init_cutoff_factor=2.0, new_embedding_init_range=0.7, scale_logits=True, include_bias=True)
    assert cut.blocks[0].att_proj.weight.abs().max() <= 0.4
    assert cut.wte.embedding.abs().max() <= 0.4 * 0.5 * math.sqrt(32)
    assert cut.wte.new_embedding.std().item() == pytest.approx(0.7, rel=0.1)
    assert all(torch.equal(p, torch.zeros_like(p)) for n, p in cut.named_parameters() if n.endswith("bias"))


def test_clipped_projection_and_biases():
    """`clip_qkv` bounds what attention sees; qkv_bias adds one bias only."""
    llm = build(clip_qkv=1e-3, attention_layer_norm=False, n_layers=1, qkv_bias=True)
    block: SequentialBlock = llm.blocks[0]
    assert [n for n, _ in block.named_parameters() if n.endswith("bias")] == ["att_proj.bias"]
    seen = []
    block.attn_out.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    run(llm, torch.randint(0, 50, (1, 6)))
    assert seen[0].abs().max() <= 1e-3 * 1.0001


def test_which_blocks_are_recomputed():
    modes = {m: [m.wraps(i) for i in range(12)] for m in ActivationCheckpoint}
    assert modes[ActivationCheckpoint.one_in_two][:4] == [False, True, False, True]
    assert [sum(modes[m]) for m in ActivationCheckpoint] == [12, 6, 4, 3, 8, 9, 12]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (dict(rope=False), "llm.rope"),
        (dict(block_type="moe"), "llm.block_type"),
        (dict(attention_type="flash"), "llm.attention_type"),
        (dict(init_fn="mitchell"), "llm.init_fn"),
        (dict(n_kv_heads=3), "n_kv_heads"),
        (dict(head_dim=16), "attention_layer_norm_type"),
        (dict(can_predict_extra_tokens=True), "can_predict_extra_tokens"),
        (dict(compile="all"), "llm.compile"),
        (dict(rope_type="yarn"), "rope_factor"),
    ],
)
def test_what_cannot_run_is_refused_by_name(override, named):
    with pytest.raises(OLMoConfigurationError, match=named):
        run(build(**override), torch.zeros(1, 2, dtype=torch.long))


def test_keys_of_older_files_are_dropped():
    raw = LlmConfig.update_legacy_settings({"mm_rope": None, "debug": False, "d_model": 8})
    assert LlmConfig.from_dict(raw).d_model == 8
