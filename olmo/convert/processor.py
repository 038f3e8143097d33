"""Tokenizer, processor, chat template and generation settings of an exported folder, by the library's own classes."""

import json
import logging
from pathlib import Path
from typing import Any

from olmo.exceptions import OLMoEnvironmentError
from olmo.hf_model.torchvision_ops import declare_missing_operators
from olmo.models.molmo2.config import Molmo2Config
from olmo.models.molmo2.preprocessor import build_llm_tokenizer
from olmo.preprocessing.prompts import DEMO_STYLES, IMAGE_MC_STYLES, VIDEO_MC_STYLES
from olmo.tokenizer import SPECIAL_TOKENS, Tokenizer

log = logging.getLogger(__name__)

_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- for message in messages if message['content'] is not string -%}
  {%- for part in message['content'] -%}
    {%- if part['type'] == 'image' -%}{%- set seen.images = seen.images + 1 -%}{%- endif -%}
    {%- if part['type'] == 'video' -%}{%- set seen.videos = seen.videos + 1 -%}{%- endif -%}
  {%- endfor -%}
{%- endfor -%}
{%- if seen.images and seen.videos -%}{{ raise_exception('images and videos cannot be asked about together') }}{%- endif -%}
{%- if seen.videos > 1 -%}{{ raise_exception('one video can be asked about at a time') }}{%- endif -%}
{%- if seen.images == 1 -%}{{ '<|image|>' }}{%- endif -%}
{%- if seen.images > 1 -%}{%- for k in range(1, seen.images + 1) -%}{{ 'Image ' ~ k ~ '<|image|>' }}{%- endfor -%}{%- endif -%}
{%- if seen.videos -%}{{ '<|video|>' }}{%- endif -%}
{%- for message in messages -%}
  {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{ raise_exception('messages must alternate between user and assistant, beginning with user') }}
  {%- endif -%}
  {{ '<|im_start|>' ~ message['role'] ~ '\\n' }}
  {%- if message['content'] is string -%}
    {{ message['content'] }}
  {%- else -%}
    {%- for part in message['content'] if part['type'] == 'text' -%}
      {%- if part['style'] is defined and part['style'] not in PLAIN_STYLES -%}{{ part['style'] ~ ': ' }}{%- endif -%}
      {{ part['text'] }}
    {%- endfor -%}
  {%- endif -%}
  {{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def chat_template() -> str:
    """Jinja template of the chat format `qwen3`: pictures first, then the turns; a text part may name its `style`."""
    plain = sorted(DEMO_STYLES | VIDEO_MC_STYLES | IMAGE_MC_STYLES)
    return _TEMPLATE.replace("PLAIN_STYLES", json.dumps(plain))


def write_processor(config: Molmo2Config, folder: Path) -> None:
    """The files that `AutoProcessor` reads, and `generation_config.json`."""
    if not declare_missing_operators():
        raise OLMoEnvironmentError("writing a Hugging Face folder needs the package 'torchvision', which its processors use")
    from transformers import Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

    for line in not_expressible(config):
        log.warning("the exported processor prepares inputs differently from this package: %s", line)
    ours = build_llm_tokenizer(config.llm)
    height, width = config.vision_backbone.vit.input_size
    pixels = {
        "size": {"height": height, "width": width},
        "patch_size": config.vision_backbone.vit.image_patch_size,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
    }
    image, video = config.mm_preprocessor.image, config.mm_preprocessor.video
    processor = Molmo2Processor(
        image_processor=Molmo2ImageProcessor(
            **pixels,
            max_crops=image.max_crops,
            overlap_margins=list(image.overlap_margins),
            pooling_size=[image.pooling_h, image.pooling_w],
        ),
        video_processor=Molmo2VideoProcessor(
            **pixels,
            num_frames=video.max_frames,
            max_fps=video.max_fps[0] if video.max_fps else 2.0,
            pooling_size=[video.pooling_h, video.pooling_w],
        ),
        tokenizer=hf_tokenizer(ours),
        chat_template=chat_template() if config.data_formatter.message_format == "qwen3" else None,
        image_use_col_tokens=image.use_col_tokens,
        use_single_crop_col_tokens=image.use_col_tokens if image.use_single_crop_col_tokens is None else image.use_single_crop_col_tokens,
        use_single_crop_start_token=image.use_single_crop_start_token,
        use_frame_special_tokens=video.use_frame_special_tokens,
    )
    processor.save_pretrained(folder)
    generation: dict[str, Any] = {"bos_token_id": ours.bos_token_id, "eos_token_id": ours.eos_token_id, "pad_token_id": ours.eos_token_id}
    (folder / "generation_config.json").write_text(json.dumps({**generation, "do_sample": False}, indent=2) + "\n")


def hf_tokenizer(ours: Tokenizer):
    """The same tokenizer as a class of transformers: filled up to the embedding's rows, and the special tokens behind."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Core
    from transformers import PreTrainedTokenizerFast

    core = Core.from_str(ours.core.to_str())
    size = core.get_vocab_size(with_added_tokens=True)
    filler = [f"|<EXTRA_TOKENS_{i}>|" for i in range(ours.pad_to - size)]
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in [*filler, *SPECIAL_TOKENS.values()]])
    text_of = core.id_to_token
    bos = {} if ours.bos_token_id == ours.eos_token_id else {"bos_token": text_of(ours.bos_token_id)}
    eos = text_of(ours.eos_token_id)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token=eos, **bos, padding_side="left", clean_up_tokenization_spaces=False
    )


def not_expressible(config: Molmo2Config) -> list[str]:
    """Settings of our preprocessing that the library's processor has no word for, with what it does instead."""
    image, video, formatter = config.mm_preprocessor.image, config.mm_preprocessor.video, config.data_formatter
    return [
        f"{name} is {value}, there it is {only}"
        for name, value, only in (
            ("image.crop_mode", image.crop_mode, "overlap-and-resize-c2"),
            ("image.max_multi_image_crops", image.max_multi_image_crops, image.max_crops),
            ("video.time_mode", video.time_mode, "per-frame-compact"),
            ("video.per_frame_special_token", video.per_frame_special_token, True),
            ("video.frame_sample_mode", video.frame_sample_mode, "uniform_last_frame"),
            ("vit.resize_mode", str(config.vision_backbone.vit.resize_mode), "siglip"),
            ("data_formatter.message_format", formatter.message_format, "qwen3"),
        )
        if value != only
    ]
