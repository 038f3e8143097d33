"""What is measured: one `Case` per row of a result file, and the list of cases of every profile.

A case is a pair: the unpruned model and the same model with one method of pruning, on the same frames and text. Everything that the
numbers depend on stands in the case, so that its key names a row for ever and a run can go on where another one ended.
"""

from dataclasses import dataclass, replace
from typing import Literal

from olmo.exceptions import OLMoConfigurationError

Direction = Literal["forward", "training"]

METHODS = ("scorer", "easy", "heuristic", "random", "evs", "tome", "fewer_frames", "lower_resolution")
TOPK = (0.3, 0.5, 0.7, 0.8)

SO400M = ("vit_layers=[-3,-9]",)
"""The released ViT: 27 blocks of width 1152 over 27 x 27 patches, 25 of which run."""
SIX_BLOCKS = ("vit.image_num_layers=6", "vit_layers=[-1,-4]", "vit.prune_at=1")
"""The case that was measured with the published code."""
TEN_BLOCKS = ("vit.image_num_layers=10", "vit_layers=[-1,-7]", "vit.prune_at=1")
TINY_VIT = (
    *("vit.image_default_input_size=[126,126]", "vit.image_num_pos=81", "vit.image_emb_dim=64", "vit.image_num_heads=2"),
    *("vit.image_num_key_value_heads=2", "vit.image_head_dim=32", "vit.image_mlp_dim=128", "vit.image_num_layers=6"),
    *("vit_layers=[-1,-3]", "vit.prune_at=1"),
)
NARROW_LLM = (
    *("llm.d_model=1024", "llm.n_layers=6", "llm.n_heads=16", "llm.n_kv_heads=8", "llm.head_dim=64", "llm.mlp_hidden_size=6144"),
    *("llm.vocab_size=8192", "llm.embedding_size=8192"),
)
TINY_LLM = (
    *("llm.d_model=64", "llm.n_layers=2", "llm.n_heads=4", "llm.n_kv_heads=2", "llm.head_dim=16", "llm.mlp_hidden_size=256"),
    *("llm.vocab_size=1024", "llm.embedding_size=1024"),
)
RELEASED_LLM: tuple[str, ...] = ()
"""That of Molmo2-4B, as the configs have it."""
ONE_LAYER = ("llm.n_layers=1", "llm.vocab_size=8192", "llm.embedding_size=8192")
"""Its widths, on which the connector depends, where it is not run."""


@dataclass(frozen=True)
class Case:
    """One row."""

    part: str
    """vit, llm, step, generate or published_case; decode and pack have cases of their own kind."""
    method: str
    """`vit.prune_method`."""
    topk: float
    """Share of a video's cells that is removed."""
    frames: int
    """Frames of every video, before pruning."""
    direction: Direction = "forward"
    """forward, or training = forward, backward (and the optimiser's step in `step`)."""
    packing: str = "varlen"
    """`vit.packing`."""
    rows: int = 1
    """Videos in the batch."""
    text: int = 0
    """Tokens of text per video besides the frames and their two markers."""
    vision: tuple[str, ...] = SO400M
    """Changes to `model.vision_backbone` of the config stts_50."""
    llm: tuple[str, ...] = RELEASED_LLM
    """Changes to `model` for the language model."""
    baseline: str = "unpruned"
    """What it is compared with: unpruned (the same kernels and compilation), plain (no compilation, dense masks) or transformers."""
    compiled: bool = False
    """Both arms through torch.compile."""
    recompute: bool = False
    """Both arms with full activation checkpointing."""
    new_tokens: int = 0
    """Tokens to generate."""

    @property
    def key(self) -> str:
        """The row's name."""
        words = [self.part, self.direction, f"{self.method}-{self.topk:g}", self.packing, f"{self.rows}x{self.frames}f"]
        words += [f"{self.text}t"] if self.text else []
        words += [self.baseline] if self.baseline != "unpruned" else []
        return "/".join(words)


def cpu_cases() -> list[Case]:
    """Real widths in fp32, as much as a small machine can do in an hour; bf16 is slower than fp32 there."""
    published = [Case("published_case", "scorer", 0.5, 16, d, vision=SIX_BLOCKS, llm=ONE_LAYER) for d in ("forward", "training")]
    vit = _all_methods(Case("vit", "scorer", 0.5, 4, llm=ONE_LAYER))
    step = _all_methods(Case("step", "scorer", 0.5, 4, "training", text=200, vision=TEN_BLOCKS, llm=NARROW_LLM))
    llm = [Case("llm", "scorer", k, 16, text=200, vision=TINY_TOWER_81, llm=NARROW_LLM) for k in (0.3, 0.5, 0.7)]
    generate = [
        Case("generate", "scorer", 0.5, 4, rows=n, text=32, vision=TINY_TOWER_81, llm=NARROW_LLM, new_tokens=16) for n in (1, 8, 32)
    ]
    reference = [
        Case("vit", "none", 0.0, 4, llm=ONE_LAYER, baseline="transformers"),
        Case("llm", "none", 0.0, 0, text=1500, vision=TINY_TOWER_81, llm=NARROW_LLM, baseline="transformers"),
    ]
    return published + vit + step + llm + generate + reference


TINY_TOWER_81 = (
    *("vit.image_emb_dim=64", "vit.image_num_heads=2", "vit.image_num_key_value_heads=2", "vit.image_head_dim=32"),
    *("vit.image_mlp_dim=128", "vit.image_num_layers=6", "vit_layers=[-1,-3]", "vit.prune_at=1"),
)
"""All 27 x 27 patches through a narrow tower, where the language model is what is measured."""


def gpu_cases() -> list[Case]:
    """The released shapes under bf16 autocast, compiled: every method at every share, and the long videos."""
    shape = dict(compiled=True)
    vit = Case("vit", "scorer", 0.5, 64, llm=ONE_LAYER, **shape)
    cases = [replace(vit, method=m, topk=k) for m in METHODS for k in TOPK]
    cases += [replace(vit, topk=k, packing="first_fit") for k in TOPK]
    cases += [replace(vit, method="none", topk=0.0, baseline="transformers")]
    cases += [Case("llm", "none", 0.0, 0, text=8192, vision=TINY_TOWER_81, baseline="transformers", **shape)]
    cases += [Case("published_case", "scorer", 0.5, 16, d, vision=SIX_BLOCKS, llm=ONE_LAYER, **shape) for d in ("forward", "training")]
    for frames in (32, 64, 128):
        for k in (0.3, 0.5, 0.7):
            cases.append(Case("step", "scorer", k, frames, "training", text=200, recompute=frames > 32, **shape))
    cases += [Case("step", m, 0.5, 64, "training", text=200, recompute=True, **shape) for m in METHODS[1:]]
    cases += [Case("step", "scorer", 0.5, 64, "training", text=200, recompute=True, baseline="plain", **shape)]
    cases += [Case("step", "scorer", 0.5, frames, "forward", text=200, **shape) for frames in (64, 128, 256)]
    cases += [Case("generate", "scorer", 0.5, 32, rows=n, text=32, new_tokens=64, **shape) for n in (1, 8, 32)]
    return cases


def smoke_cases() -> list[Case]:
    """Seconds on one core: every part once, every method once."""
    tiny = dict(vision=TINY_VIT, llm=TINY_LLM)
    cases = [Case("published_case", "scorer", 0.5, 4, d, **tiny) for d in ("forward", "training")]
    cases += [Case("vit", m, 0.5, 4, **tiny) for m in METHODS] + [Case("vit", "scorer", 0.5, 4, packing="first_fit", **tiny)]
    cases += [Case("step", m, 0.5, 4, "training", text=16, **tiny) for m in METHODS]
    cases += [Case("step", "scorer", 0.5, 4, "training", text=16, baseline="plain", **tiny)]
    cases += [Case("llm", "scorer", 0.5, 4, text=16, **tiny)]
    cases += [Case("generate", "scorer", 0.5, 4, rows=n, text=8, new_tokens=4, **tiny) for n in (1, 2)]
    cases += [Case("vit", "none", 0.0, 4, baseline="transformers", **tiny)]
    cases += [Case("llm", "none", 0.0, 0, text=64, baseline="transformers", **tiny)]
    return cases


def _all_methods(like: Case) -> list[Case]:
    """The scorer at three shares in both packings, every other method at one half."""
    scorer = [replace(like, topk=k, packing=p) for k in (0.3, 0.5, 0.7) for p in ("varlen", "first_fit")]
    return scorer + [replace(like, method=m) for m in METHODS[1:]]


PROFILES = {"cpu": cpu_cases, "gpu": gpu_cases, "smoke": smoke_cases}


def cases_of(profile: str, part: str) -> list[Case]:
    """The cases of a part (`all` = every part) in a profile."""
    if profile not in PROFILES:
        raise OLMoConfigurationError(f"unknown profile '{profile}'; known: {', '.join(PROFILES)}")
    return [case for case in PROFILES[profile]() if part in ("all", case.part)]
