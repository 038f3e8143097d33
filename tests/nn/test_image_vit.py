"""The ViT's own properties: which blocks run, grids, names, initialisation, precision, and the settings that must be refused.

`tests/oracles/test_transformers_towers.py` compares the numbers of all three families with another implementation.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.image_vit import VitConfig, normalize_pixels
from olmo.pixels import PIXEL_STATISTICS

SIDE, PATCH, DIM = 42, 14, 32


def small(**fields) -> VitConfig:
    base = dict(
        image_model_type="siglip", image_default_input_size=[SIDE, SIDE], image_emb_dim=DIM, image_num_heads=2, image_num_key_value_heads=2,
        image_head_dim=16, image_mlp_dim=64, image_num_layers=3, image_num_pos=9, image_norm_eps=1e-6,
        image_mlp_activations="gelu_pytorch_tanh", normalize="siglip",
    )  # fmt: skip
    return VitConfig.from_dict(base | fields)


def test_only_asked_layers_run():
    vit = small().build()
    ran = []
    for i, block in enumerate(vit.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    hidden = vit(torch.randn(1, 9, PATCH * PATCH * 3), layers=[1, 0])
    assert ran == [0, 1] and sorted(hidden) == [0, 1]


@pytest.mark.parametrize(("size", "positions"), [([28, 70], 10), ([42, 28], 6), ([28, 70], 9), ([56, 56], 9)])
def test_grids(size, positions):
    """Non-square grids take a table of their own size as it is, or interpolate a square one."""
    config = small(image_default_input_size=size, image_num_pos=positions)
    vit = config.build()
    torch.nn.init.normal_(vit.positional_embedding)
    table = vit.position_embedding()
    assert table.shape == (config.num_patches, DIM)
    assert (table is vit.positional_embedding) == (positions == config.num_patches)
    assert vit(torch.randn(1, config.num_patches, 588))[2].shape == (1, config.num_patches, DIM)


def test_state_dict_names(tmp_path):
    """The published inventory, and no buffers in it."""
    block = {
        f"transformer.resblocks.0.{name}": shape
        for name, shape in {
            "attention.wq.weight": (32, 32), "attention.wq.bias": (32,), "attention.wk.weight": (32, 32), "attention.wk.bias": (32,),
            "attention.wv.weight": (32, 32), "attention.wv.bias": (32,), "attention.wo.weight": (32, 32), "attention.wo.bias": (32,),
            "feed_forward.w1.weight": (64, 32), "feed_forward.w1.bias": (64,), "feed_forward.w2.weight": (32, 64),
            "feed_forward.w2.bias": (32,), "attention_norm.weight": (32,), "attention_norm.bias": (32,), "ffn_norm.weight": (32,),
            "ffn_norm.bias": (32,),
        }.items()
    }  # fmt: skip
    stem = {"positional_embedding": (9, 32), "patch_embedding.weight": (32, 588), "patch_embedding.bias": (32,)}
    with torch.device("meta"):
        vit = small(image_num_layers=1).build()
        clip = small(image_num_layers=1, image_model_type="openai", image_num_pos=10).build()
        dino = small(image_num_layers=1, image_model_type="dino", image_num_pos=10).build()
    assert {name: tuple(t.shape) for name, t in vit.state_dict().items()} == stem | block
    assert set(clip.state_dict()) ^ set(vit.state_dict()) == {"class_embedding", "pre_ln.weight", "pre_ln.bias", "patch_embedding.bias"}
    assert set(dino.state_dict()) ^ set(vit.state_dict()) == {
        "class_embedding", "transformer.resblocks.0.lambda1", "transformer.resblocks.0.lambda2"
    }  # fmt: skip
    vit = small(image_num_layers=1).build()
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    vit.load_state_dict(load_file(tmp_path / "vit.safetensors"))


@pytest.mark.parametrize("family", ["siglip", "openai", "dino"])
def test_reset_after_meta(family):
    """Every parameter is defined after `to_empty`, with the spread the initialisation promises."""
    with torch.device("meta"):
        vit = small(image_model_type=family, image_num_pos=9 if family == "siglip" else 10, image_emb_dim=64, image_head_dim=32).build()
    vit = vit.to_empty(device="cpu")
    for parameter in vit.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    torch.manual_seed(0)
    vit.reset_parameters()
    assert all(p.isfinite().all() for p in vit.parameters())
    block = vit.blocks[0]
    assert block.attention.wq.weight.std().item() == pytest.approx(0.02, rel=0.1) and not block.attention.wq.bias.any()
    assert block.feed_forward.w1.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert vit.positional_embedding.std().item() == pytest.approx(64**-0.5, rel=0.2)


def test_half_precision_attention_runs_in_fp32():
    """Without autocast a bf16 model attends in fp32 by default; `float32_attention` off attends in bf16."""
    torch.manual_seed(0)
    x = torch.randn(1, 9, 588)
    outputs = {}
    for wide in (True, False):
        torch.manual_seed(1)
        vit = small(float32_attention=wide).build()
        vit.reset_parameters()
        seen = []
        vit.blocks[0].attention.wo.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        outputs[wide] = vit.bfloat16()(x)[0]
        assert seen[0].dtype == torch.bfloat16
    assert outputs[True].dtype == torch.bfloat16
    assert not torch.equal(outputs[True], outputs[False])


@pytest.mark.parametrize("mode", list(PIXEL_STATISTICS))
def test_normalize_pixels(mode):
    mean, std = PIXEL_STATISTICS[mode]
    pixels = torch.randint(0, 256, (2, 9, 588), dtype=torch.uint8)
    expected = (pixels.double().view(2, 9, -1, 3) / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    torch.testing.assert_close(normalize_pixels(pixels, mode).double(), expected.flatten(2), atol=1e-5, rtol=1e-5)
    floats = torch.randn(1, 9, 588)
    assert normalize_pixels(floats, mode) is floats


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image_head_dim": 8}, "image_num_heads \\* vit.image_head_dim = 16"),
        ({"image_num_key_value_heads": 3}, "must divide"),
        ({"image_default_input_size": [40, 42]}, "multiples of"),
        ({"image_mlp_activations": "relu"}, "image_mlp_activations = 'relu'"),
        ({"attention_type": "flash"}, "attention_type = 'flash'"),
        ({"sdpa_backend": "fastest"}, "sdpa_backend = 'fastest'"),
        ({"image_dropout_rate": 0.1}, "image_dropout_rate"),
        ({"image_num_pos": 11}, "image_num_pos = 11"),
    ],
)
def test_bad_settings(fields, words):
    with pytest.raises(OLMoConfigurationError, match=words):
        small(**fields).build()


def test_wrong_number_of_patches():
    with pytest.raises(OLMoConfigurationError, match="16 patches.*make 9"):
        small().build()(torch.zeros(1, 16, 588))


def test_block_compiles_whole():
    """One graph without breaks for a flat run and for the key bias; a changing total compiles once more, then never again.

    Seen to fail with the backend chosen (and logged) inside of what is compiled.
    """
    from torch._dynamo.testing import CompileCounter

    from olmo.nn.attention import Segments

    block = small().build().blocks[0]
    counter = CompileCounter()
    compiled = torch.compile(block.forward, backend=counter, fullgraph=True)
    for total in (20, 23, 17, 25):
        x, segments = torch.randn(total, DIM), Segments(torch.tensor([0, 5, total], dtype=torch.int32), total, 20)
        torch.testing.assert_close(compiled(x, segments=segments), block(x, segments=segments))
    assert counter.frame_count == 2
    x, bias = torch.randn(3, 9, DIM), torch.randn(3, 9)
    torch.testing.assert_close(compiled(x, key_bias=bias), block(x, key_bias=bias))
