"""Compare our bf16 arithmetic with that of transformers' Molmo2: the same random weights, an fp32 reference, no download.

    python scripts/compare_numerics.py [--size=4b|tiny] [--frames=8] [--text=64] [--batches=3] [--output=FILE]

`4b` has the shape of Molmo2-4B and needs a GPU with 60 GB; `tiny` runs anywhere in seconds and says nothing about real
models. In each precision our error must be at most 1.1 times theirs; the exit status is 1 where it is not.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from olmo.batch import Batch
from olmo.benchmark.models import one_video_per_row
from olmo.benchmark.results import environment
from olmo.config import read_yaml
from olmo.config_files import find_config
from olmo.exceptions import OLMoCliError, OLMoEnvironmentError
from olmo.launch import CommandParser, run_command, setup_logging
from olmo.models.model import build_model_config
from olmo.models.molmo2.preprocessor import video_cells
from olmo.nn.image_vit import normalize_pixels
from olmo.nn.pruning_plan import plan_pruning
from olmo.tokenizer import IMAGE_TOKENS

LIMIT = 1.1
"""Largest allowed ratio of our error to theirs."""
CLEAR = 4
"""Top-1 is compared where the best logit leads by more than this many times the error."""
TINY = dict(
    llm=dict(d_model=128, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=32, mlp_hidden_size=512, vocab_size=512, embedding_size=512),
    vit=dict(
        image_emb_dim=72, image_num_heads=2, image_num_key_value_heads=2, image_head_dim=36, image_num_layers=10, image_mlp_dim=192,
        image_default_input_size=[126, 126], image_num_pos=81,
    ),
)  # fmt: skip
ERRORS = ("vit", "logits_rms", "logits_kl")


def model_config(size: str, temporal: bool = False):
    """Molmo2-4B, or the same with few and narrow layers; `temporal` with a scorer."""
    raw = read_yaml(find_config("molmo2_4b"))["model"]
    if size == "tiny":
        raw["llm"] |= TINY["llm"]
        raw["vision_backbone"]["vit"] |= TINY["vit"]
    if temporal:
        raw["model_name"] = "temporal_video_olmo"
        raw["vision_backbone"]["vit"]["topk"] = 0.5
    return build_model_config(raw)


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Weights that keep the loudness of what passes; norms around 1, biases around 0."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.normal_(mean=1.0 if name.endswith("weight") else 0.0, std=0.1)


def build_theirs(config, device: torch.device, seed: int) -> nn.Module:
    """transformers' own class in fp32."""
    from olmo.hf_model.config import to_hf_config
    from olmo.hf_model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import transformers

    if not hasattr(transformers, "Molmo2Config"):
        raise OLMoEnvironmentError(f"transformers {transformers.__version__} has no Molmo2: pip install 'transformers>=5.20'")
    settings = {k: v for k, v in to_hf_config(config).items() if k not in ("model_type", "olmo")}
    with device:
        model = transformers.Molmo2ForConditionalGeneration(transformers.Molmo2Config(**settings)).eval().requires_grad_(False)
    randomise(model, seed)
    if config.llm.weight_tying:  # they keep two copies
        model.lm_head.weight.copy_(model.get_input_embeddings().weight[: config.llm.embedding_rows])
    return model


def build_ours(config, theirs: nn.Module) -> nn.Module:
    """Our model with their weights (shared where one tensor is one tensor)."""
    from olmo.hf_model.names import HEAD, correspondence

    state = theirs.state_dict()
    table, unknown = correspondence(state, config.llm.embedding_rows)
    assert not unknown, unknown
    own = {}
    for name, stored in table.items():
        parts = [state[part] for part in stored.names]
        own[name] = (parts[0] if len(parts) == 1 else torch.cat(parts))[slice(*(stored.rows or (None,)))]
    if config.llm.weight_tying:
        del own[HEAD]
    model = config.build_model("meta")
    model.load_state_dict(own, assign=True)
    return model.eval().requires_grad_(False)


def make_batch(config, frames: int, text: int, seed: int) -> Batch:
    """One row: a few words before every frame of a slowly changing noise video, then text."""
    g = torch.Generator().manual_seed(seed)
    ids, vit = config.special_token_ids(), config.vision_backbone.vit

    def words(n: int) -> list[int]:
        return torch.randint(0, config.llm.vocab_size, (n,), generator=g).tolist()

    cells = [ids["image_patch"]] * video_cells(config).num_cells
    tokens = words(1)
    for _ in range(frames):
        tokens += [*words(4), ids["frame_start"], *cells, ids["frame_end"]]
    tokens += words(text)
    still, change = torch.rand(2, 1, frames, vit.num_patches, vit.image_patch_size**2 * 3, generator=g).unbind(0)
    images = (255 * (0.8 * still[:, :1] + 0.2 * change)).to(torch.uint8)
    return one_video_per_row(config, torch.tensor([tokens]), images)


@dataclass
class Seen:
    """What one model computed from one batch, in fp32."""

    vit: Tensor
    """[frames * patches, D * layers]: the ViT's output that the connector reads."""
    logits: Tensor
    """[tokens, V]"""


def run_ours(model: nn.Module, batch: Batch) -> Seen:
    backbone, blocks = model.vision_backbone, {}
    hook = backbone.image_vit.register_forward_hook(lambda _, args, out: blocks.update(out))
    logits = model(batch, logits="all").logits
    hook.remove()
    return Seen(torch.cat([blocks[i].flatten(0, 1) for i in backbone.layers], -1).float(), logits.float())


def run_theirs(model: nn.Module, batch: Batch, config) -> Seen:
    vit, blocks, hooks = config.vision_backbone.vit, {}, []
    for i in config.vision_backbone.layers:
        layer = model.model.vision_tower.layers[i]
        hooks.append(layer.register_forward_hook(lambda _, args, out, i=i: blocks.update({i: out if torch.is_tensor(out) else out[0]})))
    ids = config.special_token_ids()
    picture = torch.isin(batch.input_ids, torch.tensor([ids[name] for name in IMAGE_TOKENS], device=batch.input_ids.device))
    frames = batch.images.shape[1]
    cells = (vit.grid[0] // config.mm_preprocessor.video.pooling_h, vit.grid[1] // config.mm_preprocessor.video.pooling_w)
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        mm_token_type_ids=picture.long(),
        pixel_values_videos=normalize_pixels(batch.images.flatten(0, 1), vit.normalize).to(model.dtype),
        video_token_pooling=batch.token_pooling.flatten(0, 1),
        video_grids=torch.tensor([[frames, *cells]], device=batch.images.device),
    ).logits
    for hook in hooks:
        hook.remove()
    return Seen(torch.cat([blocks[i].flatten(0, 1) for i in config.vision_backbone.layers], -1).float(), logits[0].float())


@dataclass
class Comparison:
    """Distance from the fp32 reference, averaged over batches."""

    who: str
    precision: str
    vit: float = 0.0
    """1 - mean cosine of the ViT's output."""
    logits_rms: float = 0.0
    """Root mean square of the error of the logits."""
    logits_kl: float = 0.0
    """Mean Kullback-Leibler divergence, nats per token."""
    clear: int = 0
    """Tokens whose best logit leads by more than `CLEAR` times the error."""
    agree: int = 0
    """Of these, tokens with the same best logit."""

    def add(self, seen: Seen, reference: Seen, share: float) -> None:
        cosine = F.cosine_similarity(seen.vit.double(), reference.vit.double(), dim=-1).mean().item()
        rms = (seen.logits - reference.logits).square().mean().sqrt().item()
        ours, wanted = seen.logits.log_softmax(-1), reference.logits.log_softmax(-1)
        self.vit += share * (1 - cosine)
        self.logits_rms += share * rms
        self.logits_kl += share * (wanted.exp() * (wanted - ours)).sum(-1).mean().item()
        best = reference.logits.topk(2, -1)
        clear = best.values[:, 0] - best.values[:, 1] > CLEAR * rms
        self.clear += int(clear.sum())
        self.agree += int((seen.logits.argmax(-1) == best.indices[:, 0])[clear].sum())


def compare(config, device: torch.device, batches: Sequence[Batch], seed: int) -> list[Comparison]:
    """Both implementations in every precision against transformers in fp32."""
    theirs = build_theirs(config, device, seed)
    models = {"transformers": theirs, "olmo": build_ours(config, theirs)}
    references: list[Seen] = []
    found = []
    for precision in ("fp32", "autocast", "bf16"):
        if precision == "bf16":
            for model in models.values():
                for parameter in model.parameters():  # not the rotary tables of transformers, which `Module.to` would round too
                    parameter.data = parameter.data.bfloat16()
        cast = torch.autocast(device.type, torch.bfloat16) if precision == "autocast" else nullcontext()
        for who, model in models.items():
            row = Comparison(who, precision)
            for i, batch in enumerate(batches):
                with torch.inference_mode(), cast:
                    seen = run_ours(model, batch) if who == "olmo" else run_theirs(model, batch, config)
                if len(references) == i:
                    references.append(seen)
                row.add(seen, references[i], 1 / len(batches))
            found.append(row)
    return found


def ratios(rows: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    """Our error over theirs, by precision."""
    by = {(row.who, row.precision): row for row in rows}
    return {
        precision: {name: getattr(by["olmo", precision], name) / getattr(by["transformers", precision], name) for name in ERRORS}
        for precision in ("autocast", "bf16")
    }


def score_ties(config, device: torch.device, batch: Batch, seed: int) -> dict[str, int]:
    """How many cells of one video share a score when scores are rounded to bf16, and how many of them the budget cuts through."""
    vit = config.vision_backbone.vit.build(config.vision_backbone.vit.prune_at + 2).to(device).eval()
    randomise(vit, seed)
    images = batch.images.flatten(0, 1)
    plan = plan_pruning(batch.layout, len(images), vit.config.cells, vit.config.topk, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        seen = vit(normalize_pixels(images, vit.config.normalize), [vit.config.prune_at + 1], plan)
    scores, (video,) = seen.scores[1:].flatten(), plan.videos  # the first frame is never pruned
    counts = {"cells": scores.numel(), "dropped": video.budget}
    for name, values in (("fp32", scores), ("bf16", scores.bfloat16())):
        last = values.sort().values[video.budget - 1]
        below, equal = int((values < last).sum()), int((values == last).sum())
        counts[f"distinct_{name}"] = len(values.unique())
        counts[f"open_{name}"] = equal if below + equal > video.budget else 0
    return counts


def report(rows: Sequence[Comparison], by_precision: dict[str, dict[str, float]], ties: dict[str, int]) -> str:
    """The table."""
    lines = [f"{'':13} {'precision':9} {'1 - cos ViT':>12} {'RMS logits':>12} {'KL logits':>12} {'top-1 where clear':>18}"]
    for row in rows:
        errors = " ".join(f"{getattr(row, name):12.3e}" for name in ERRORS)
        lines.append(f"{row.who:13} {row.precision:9} {errors} {f'{row.agree} of {row.clear}':>18}")
    for precision, values in by_precision.items():
        lines.append(f"{'ours / theirs':13} {precision:9} " + " ".join(f"{values[name]:12.3f}" for name in ERRORS))
    lines.append(
        f"scores of {ties['cells']} cells: {ties['distinct_fp32']} different ones in fp32, {ties['distinct_bf16']} rounded to bf16; "
        f"equal ones at the budget: {ties['open_fp32']} and {ties['open_bf16']}"
    )
    return "\n".join(lines)


def parse(argv: Sequence[str]):
    parser = CommandParser("compare_numerics.py", __doc__)
    parser.add_argument("--size", choices=("4b", "tiny"), default="4b", help="shape of the model")
    parser.add_argument("--frames", type=int, default=8, help="frames of the video in every batch")
    parser.add_argument("--text", type=int, default=64, help="text tokens after the video")
    parser.add_argument("--batches", type=int, default=3, help="batches to average over")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and inputs")
    parser.add_argument("--output", type=Path, help="JSON file of the result (default: benchmarks/results/numerics-SIZE-DEVICE.json)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    args = parser.parse_args(argv)
    for name, least in (("frames", 2), ("text", 1), ("batches", 1)):
        if getattr(args, name) < least:
            raise OLMoCliError(f"--{name} must be at least {least}")
    return args


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    setup_logging(debug=args.debug)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.size == "4b" and device.type == "cpu":
        raise OLMoEnvironmentError("--size=4b needs a GPU with 60 GB; --size=tiny runs anywhere")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = model_config(args.size)
    batches = [make_batch(config, args.frames, args.text, args.seed + i).to(device) for i in range(args.batches)]
    rows = compare(config, device, batches, args.seed)
    by_precision = ratios(rows)
    ties = score_ties(model_config(args.size, temporal=True), device, batches[0], args.seed)
    print(report(rows, by_precision, ties))

    passed = all(v <= LIMIT for values in by_precision.values() for v in values.values()) and all(r.agree == r.clear for r in rows)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    result = {
        "size": args.size,
        "environment": environment(device),
        "arguments": {key: getattr(args, key) for key in ("frames", "text", "batches", "seed")},
        "rows": [asdict(row) for row in rows],
        "ratios": by_precision,
        "limit": LIMIT,
        "passed": passed,
        "scores": ties,
    }
    output = args.output or Path("benchmarks/results") / f"numerics-{args.size}-{name.replace(' ', '-')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'within' if passed else 'NOT within'} {LIMIT} times the error of transformers; result in {output}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
