"""Model blocks of config files: which class they select, what older files held, what is refused."""

import pytest

from olmo import model_configs
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.models.model import build_model_config
from olmo.models.molmo2.config import Molmo2Config
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from tests.models.builders import LLM, VIT, Example, batch, config, model


def raw(**top):
    return dict(model_name="video_olmo", llm=dict(LLM), vision_backbone=dict(vit=dict(VIT))) | top


def test_the_name_selects_the_class():
    assert type(build_model_config(raw())) is Molmo2Config
    assert type(build_model_config(raw(model_name="temporal_video_olmo"))) is TemporalVideoOlmoConfig
    assert build_model_config(raw(), ["llm.n_layers=1"]).llm.n_layers == 1


@pytest.mark.parametrize("name", [None, "molmo", "video_olmoo"])
def test_missing_or_unknown_names_list_the_known_ones(name):
    with pytest.raises(OLMoConfigurationError, match="known models: video_olmo, temporal_video_olmo"):
        build_model_config(raw(model_name=name) if name else {k: v for k, v in raw().items() if k != "model_name"})


def test_a_config_survives_its_file(tmp_path):
    for c in (config(), config(temporal=False), model_configs.DEBUG_MOLMO2):
        c.save(tmp_path / "model.yaml")
        assert type(c).load(tmp_path / "model.yaml").to_yaml() == c.to_yaml()


def test_older_files_are_migrated():
    """Retired keys vanish in every block; video settings that stood flat go into their block, markers per frame."""
    old = raw(debug=False, shared_low_high_embedding=True, mm_preprocessor=dict(max_frames=12, pooling_w=3, max_crops=1))
    old["llm"] |= dict(mm_rope=None, debug=False)
    old["vision_backbone"] |= dict(frame_embedding=None, image_pooling_h=2, fix_image_padding=True)
    old["vision_backbone"]["vit"] |= dict(truncate_pos_ids=False)
    old["data_formatter"] = dict(_point_formatter=dict(pointing_format="default", points_decimal_places=1))
    for name in ("video_olmo", "temporal_video_olmo"):
        c = build_model_config(old | dict(model_name=name))
        assert c.mm_preprocessor.video.max_frames == 12 and c.mm_preprocessor.video.per_frame_special_token
    with pytest.raises(OLMoConfigurationError, match="model.debug"):
        build_model_config(raw(debug=True))
    for key in ("mm_rope", "debug"):
        with pytest.raises(OLMoConfigurationError, match=f"llm.{key}"):
            build_model_config(raw(llm=dict(LLM) | {key: True}))


def test_two_fractions_must_agree():
    """Null is taken from the ViT; two different explicit values are refused by name."""
    video = lambda topk: dict(mm_preprocessor=dict(video=dict(topk=topk)))  # noqa: E731
    for settings in ({}, video(0.3)):
        c = config(vit=dict(topk=0.3), **settings)
        c.validate()
        assert c.mm_preprocessor.pruning(c.vision_backbone.vit) == (0.3, 0)
    with pytest.raises(OLMoConfigurationError, match=r"mm_preprocessor.video.topk is 0.5 but vision_backbone.vit.topk is 0.3"):
        config(vit=dict(topk=0.3), **video(0.5)).build_model()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: config(bi_directional_attn="within_image"), "image.use_single_crop_start_token"),
        (
            lambda: config(
                bi_directional_attn="within_image",
                mm_preprocessor=dict(image=dict(use_single_crop_start_token=True), video=dict(use_frame_special_tokens=False)),
            ),
            "video.use_frame_special_tokens",
        ),
        (lambda: config(llm=dict(vocab_size=60)), "llm.vocab_size"),
        (lambda: config(llm=dict(additional_vocab_size=8)), "additional_vocab_size"),
        (lambda: config(llm=dict(additional_vocab_size=None)), "additional_vocab_size"),
        (lambda: config(vit=dict(pooling_h=2)), "pooling_h"),
        (lambda: config(vision_backbone=None), "vision_backbone"),
        (lambda: config(vit=dict(topk=1.0)), "topk"),
    ],
)
def test_what_cannot_work_is_refused_by_name(make, named):
    with pytest.raises(OLMoConfigurationError, match=named):
        make().build_model()


def test_special_tokens_follow_the_vocabulary():
    """The ids of released models, without their tokenizers."""
    ids = Molmo2Config(llm=model_configs.LLMS["qwen3_4b"]).special_token_ids()
    assert (ids["image_start"], ids["image_patch"], ids["frame_start"], ids["subpatch_loc"]) == (151936, 151938, 151943, 151949)
    assert Molmo2Config(llm=model_configs.LLMS["olmo3_7b_instruct"]).special_token_ids()["image_start"] == 100278
    built = config().build_model()
    assert built.image_patch_id == 64 + 2 and built.special_token_ids["frame_start"] == 64 + 7


def test_named_configs(monkeypatch, tmp_path):
    """Every named config is valid, and its file lies below MOLMO_DATA_DIR."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    for llm in model_configs.LLMS.values():
        Molmo2Config(llm=llm).validate()
    for name, vit in model_configs.VITS.items():
        vit.validate()
        assert vit.num_patches + vit.num_prefix_tokens == vit.image_num_pos, name
    c = Molmo2Config(llm=model_configs.LLMS["qwen3_4b"])
    c.vision_backbone.vit = model_configs.VITS["siglip2"]
    files = c.build_model().pretrained_files()
    assert files == {
        "transformer.": f"{tmp_path}/pretrained_llms/qwen3-4b.pt",
        "vision_backbone.image_vit.": f"{tmp_path}/pretrained_image_encoders/siglip2-so400m-14-384.pt",
    }
    assert model_configs.DEBUG_MOLMO2.build_model().pretrained_files() == {}


def test_every_field_of_the_model_block_has_a_description():
    """A docstring stands under each field of the classes that live here."""
    import ast
    import inspect

    from olmo.models import model as model_module
    from olmo.models.molmo2 import config as molmo2
    from olmo.models.temporal_video_olmo import config as temporal
    from olmo.nn import llm_config

    for module in (model_module, molmo2, temporal, llm_config):
        for cls in (n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ClassDef) and n.name.endswith("Config")):
            for field, below in zip(cls.body, [*cls.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and not field.target.id.startswith("_"):
                    assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant), f"{cls.name}.{field.target.id}"


def test_wrong_batches_are_refused():
    """A layout that contradicts the tensors, a loss without labels, images without a backbone."""
    from dataclasses import replace

    m, b = model(), batch([Example(2)])
    with pytest.raises(OLMoDataError, match="tokens with a loss"):
        m(replace(b, layout=(replace(b.layout[0], num_loss_tokens=1),)))
    with pytest.raises(OLMoDataError, match="labels"):
        m(replace(b, labels=None), compute_loss=True)
    with pytest.raises(OLMoDataError, match="<im_patch>"):
        m(replace(b, input_ids=b.input_ids.masked_fill(b.input_ids == m.image_patch_id, 5)))
    text_only = model(temporal=False, vision_backbone=None)
    with pytest.raises(OLMoConfigurationError, match="vision_backbone is null"):
        text_only(b)
    text_only(batch([Example(0)]))
