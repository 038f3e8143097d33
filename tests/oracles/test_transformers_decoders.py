"""The decoder against transformers' Qwen3 and OLMo3: heads of 128, published rope, positions far beyond the original context.

Seen to fail with: up and gate exchanged, eps 1e-5, yarn on every layer or on none, its amplitude left out, norms of OLMo3 before
the branches, q/k norm per head for OLMo3.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from olmo.model_configs import LLMS
from olmo.nn.attention_mask import dense_mask, token_attributes
from olmo.nn.llm import LlmConfig, Transformer
from tests.oracles import HIDDEN, LOGITS, check_close, no_grad

VOCAB, WIDTH, HEADS, HIDDEN_WIDTH, LENGTH = 500, 256, 2, 384, 120


def narrow(name: str, layers: int, **fields) -> LlmConfig:
    """A named decoder with the same heads, norms and rope, but few of them."""
    small = dict(d_model=WIDTH, n_heads=HEADS, n_layers=layers, mlp_hidden_size=2 * HIDDEN_WIDTH, vocab_size=VOCAB, embedding_size=VOCAB)
    return replace(LLMS[name], **(small | fields), init_path=None)


def our_state_dict(theirs: nn.Module, config: LlmConfig) -> dict[str, torch.Tensor]:
    """Their weights under our names: q, k, v and up, gate are fused here."""
    state = theirs.state_dict()
    own = {"wte.embedding": state["model.embed_tokens.weight"], "ln_f.weight": state["model.norm.weight"]}
    own["wte.new_embedding"] = torch.randn(config.additional_vocab_size, WIDTH)
    if not config.weight_tying:
        own["ff_out.weight"] = state["lm_head.weight"]
    for i in range(config.n_layers):
        layer = {k.removeprefix(f"model.layers.{i}."): v for k, v in state.items() if k.startswith(f"model.layers.{i}.")}
        parts = {
            "att_proj": torch.cat([layer[f"self_attn.{n}_proj.weight"] for n in "qkv"]),
            "attn_out": layer["self_attn.o_proj.weight"],
            "ff_proj": torch.cat([layer["mlp.up_proj.weight"], layer["mlp.gate_proj.weight"]]),
            "ff_out": layer["mlp.down_proj.weight"],
            "q_norm": layer["self_attn.q_norm.weight"],
            "k_norm": layer["self_attn.k_norm.weight"],
            "attn_norm": layer["post_attention_layernorm.weight" if config.norm_after else "input_layernorm.weight"],
            "ff_norm": layer["post_feedforward_layernorm.weight" if config.norm_after else "post_attention_layernorm.weight"],
        }
        own |= {f"blocks.{i}.{n}.weight": t for n, t in parts.items()}
    return own


def compare(config: LlmConfig, theirs: nn.Module, what: str, first_position: int = 0) -> None:
    """Output of every block, final norm and logits, for positions that start at `first_position`."""
    ours = Transformer(config).eval()
    ours.load_state_dict(our_state_dict(no_grad(theirs), config))
    ids = torch.randint(0, VOCAB, (2, LENGTH))
    positions = torch.arange(first_position, first_position + LENGTH).expand_as(ids)
    blocks = []
    for block in ours.blocks:
        block.register_forward_hook(lambda _, args, out: blocks.append(out))
    tokens = token_attributes(ids, None)
    with torch.no_grad():
        expected = theirs(input_ids=ids, position_ids=positions, output_hidden_states=True)
        last = ours(ours.embed(ids), positions, dense_mask(tokens, tokens, None))
        logits = ours.logits(last.flatten(0, 1)).view_as(expected.logits)
    for i, block in enumerate(blocks[:-1]):  # the last one they give after the final norm only
        check_close(block, expected.hidden_states[i + 1], HIDDEN, f"{what} block {i}")
    check_close(ours.ln_f(blocks[-1]).detach(), expected.hidden_states[-1], HIDDEN, f"{what} final norm")
    check_close(logits, expected.logits, LOGITS, f"{what} logits")


def common(layers: int) -> dict:
    return dict(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=HEADS, intermediate_size=HIDDEN_WIDTH,
        rms_norm_eps=1e-6, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "theta", "tied"), [("qwen3_4b_instruct", 5e6, True), ("qwen3_8b", 1e6, False)])
def test_qwen3(name, theta, tied):
    """Head width and model width are independent, keys are shared."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    rope = dict(rope_type="default", rope_theta=theta)
    config = Qwen3Config(
        **common(4) | dict(num_attention_heads=4), num_key_value_heads=1, head_dim=128, tie_word_embeddings=tied, rope_parameters=rope
    )
    compare(narrow(name, 4, n_heads=4, n_kv_heads=1), Qwen3ForCausalLM(config), name)


@pytest.mark.parametrize("first_position", [0, 30_000, 65_000])
def test_olmo3(first_position):
    """Yarn on every fourth layer, plain rope on the others; their sliding window is longer than the sequence, ours does not exist."""
    from transformers import Olmo3Config, Olmo3ForCausalLM

    yarn = dict(factor=8.0, attention_factor=1.2079441541679836, beta_fast=32.0, beta_slow=1.0, original_max_position_embeddings=8192)
    config = Olmo3Config(
        **common(8),
        num_key_value_heads=HEADS,
        tie_word_embeddings=False,
        sliding_window=4096,
        max_position_embeddings=65536,
        layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 2,
        rope_parameters={
            "full_attention": dict(rope_type="yarn", rope_theta=5e5, **yarn),
            "sliding_attention": dict(rope_type="default", rope_theta=5e5),
        },
    )
    ours = narrow("olmo3_7b_instruct", 8, n_kv_heads=HEADS, full_attention_layers=[3, 7])
    compare(ours, Olmo3ForCausalLM(config), f"olmo3 from position {first_position}", first_position)
