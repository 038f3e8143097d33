"""Which frames of a video matter, told by a SigLIP of two towers: those like the question, or those unlike their neighbours.

The towers of a trained model cannot tell: its ViT has neither the pooled output nor the text side any more. So another
encoder looks at the same frames before the model does, on the host. Shapes: F = frames, d = width of an embedding.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError, first_line
from olmo.hf_model.torchvision_ops import declare_missing_operators
from olmo.preprocessing.slow_fast import FrameScorer, SlowFastConfig, SlowFastMode

PREFIX = "This photo has: "
WINDOW = 64
"""Tokens of a text, its end included, as these encoders were trained."""
MAX_WINDOWS = 8
"""Windows into which a long query is cut; what is behind them is left out."""
AT_A_TIME = 16
"""Frames that are encoded together."""


class TwoTowers:
    """Text and image embeddings of unit length, from a folder; the model is loaded when first used."""

    def __init__(self, folder: str | Path | None, device: str = "cpu") -> None:
        self.folder, self.device = Path(folder or ""), device
        if not (self.folder / "config.json").is_file():
            raise OLMoConfigurationError(
                f"video.slow_fast.encoder {folder} is no folder of an encoder (it has no config.json); "
                "it must hold a SigLIP or SigLIP 2 with both towers and its tokenizer, such as google/siglip2-so400m-patch14-384"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "device": self.device}  # a worker process loads its own

    @cached_property
    def parts(self) -> tuple[Any, Any, Any]:
        """(model, tokenizer, image processor)."""
        if self.device != "cpu" and torch.utils.data.get_worker_info() is not None:
            raise OLMoConfigurationError(f"video.slow_fast.encoder_device {self.device} needs --num_workers 0: workers have no GPU")
        declare_missing_operators()
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        try:
            model = AutoModel.from_pretrained(self.folder, local_files_only=True, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            processor = AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as err:
            raise OLMoEnvironmentError(f"the encoder in {self.folder} cannot be loaded: {first_line(err)}") from None
        if not all(hasattr(model, name) for name in ("text_model", "vision_model")):
            kind = type(model).__name__
            raise OLMoConfigurationError(f"{self.folder} holds a {kind}; video.slow_fast.encoder needs a SigLIP with both towers")
        if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
            raise OLMoConfigurationError(f"the tokenizer in {self.folder} must name an eos_token and a pad_token")
        return model.to(self.device).eval(), tokenizer, processor

    def texts(self, queries: Sequence[str]) -> Tensor:
        """One or more embeddings per query, [n, d]."""
        model, tokenizer, _ = self.parts
        rows = []
        for query in queries:
            ids = tokenizer(PREFIX + query.lower(), add_special_tokens=False)["input_ids"]
            rows += windows(ids, tokenizer.eos_token_id, tokenizer.pad_token_id)
        with torch.inference_mode():
            return unit(model.get_text_features(input_ids=torch.tensor(rows, device=self.device)))

    def images(self, frames: np.ndarray) -> Tensor:
        """[F, H, W, 3] uint8 -> [F, d]."""
        model, _, processor = self.parts
        found = []
        with torch.inference_mode():
            for start in range(0, len(frames), AT_A_TIME):
                pixels = processor(images=list(frames[start : start + AT_A_TIME]), return_tensors="pt")
                found.append(unit(model.get_image_features(**pixels.to(self.device))))
        return torch.cat(found)


def windows(ids: Sequence[int], eos: int, pad: int) -> list[list[int]]:
    """Token ids cut into at most MAX_WINDOWS texts of WINDOW tokens, each with its end and filled up behind it."""
    step = WINDOW - 1
    cut = [list(ids[i : i + step]) + [eos] for i in range(0, min(len(ids), step * MAX_WINDOWS), step)]
    return [w + [pad] * (WINDOW - len(w)) for w in cut]


def unit(features: Any) -> Tensor:
    """Pooled output of a tower as fp32 vectors of length 1 on the host (some versions of transformers wrap the tensor)."""
    pooled = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(pooled.float(), dim=-1).cpu()


class _Scores:
    """Remembers the frames of the last video: the questions of one video follow one another."""

    def __init__(self, towers: TwoTowers) -> None:
        self.towers = towers
        self._last: tuple[np.ndarray, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"towers": self.towers, "_last": None}

    def embeddings(self, frames: np.ndarray) -> Tensor:
        if self._last is None or self._last[0] is not frames:
            self._last = (frames, self.towers.images(frames))
        return self._last[1]


class QueryScores(_Scores):
    """Cosine with the query; of several embeddings (a long query, several queries) the best one counts for each frame."""

    def __call__(self, frames: np.ndarray, queries: Sequence[str]) -> np.ndarray:
        return (self.embeddings(frames) @ self.towers.texts(queries).T).amax(1).numpy()


class DifferenceScores(_Scores):
    """Mean of |1 - cosine| over the frame before and the frame after (the first and the last frame have one of them)."""

    def __call__(self, frames: np.ndarray, queries: Sequence[str]) -> np.ndarray:
        return neighbour_difference(self.embeddings(frames)).numpy()


def neighbour_difference(embeddings: Tensor) -> Tensor:
    """[F, d] of unit length, at least two -> [F]."""
    change = (1 - (embeddings[1:] * embeddings[:-1]).sum(-1)).abs()  # [F - 1]
    return torch.cat([change[:1], (change[1:] + change[:-1]) / 2, change[-1:]])


def build_frame_scorer(config: SlowFastConfig) -> FrameScorer | None:
    """The scorer that a mode needs; None where no score decides."""
    scorers = {SlowFastMode.query: QueryScores, SlowFastMode.difference: DifferenceScores}
    return scorers[config.mode](TwoTowers(config.encoder, config.encoder_device)) if config.mode in scorers else None
