"""Loads an exported folder the way anybody would, with transformers alone; run by the tests as a process of its own.

    python exported.py FOLDER REQUESTS OUT [--trust_remote_code]

REQUESTS is a file of `torch.save`: name -> {content, images?, videos?}. OUT gets name -> what came out.
"""

import importlib.util
import sys
from pathlib import Path


def allow_torchvision() -> None:
    """The same small help for a CPU torch as in the other tests, as a file, not as part of the package."""
    file = Path(__file__).resolve().parents[2] / "olmo/hf_model/torchvision_ops.py"
    spec = importlib.util.spec_from_file_location("torchvision_ops", file)
    module = sys.modules["torchvision_ops"] = importlib.util.module_from_spec(spec)  # what it declares lives as long as it
    spec.loader.exec_module(module)
    module.declare_missing_operators()


def decode_with_pyav() -> None:
    """Their processor decodes with torchcodec alone, though the library can use others."""
    from transformers import video_processing_utils as processing

    load = processing.load_video
    processing.is_torchcodec_usable = lambda **kwargs: True
    processing.load_video = lambda video, backend, **kwargs: load(video, backend="pyav", **kwargs)


def answer(model, processor, request: dict) -> dict:
    import torch
    from transformers.video_utils import VideoMetadata

    pictures = {}
    if "images" in request:
        pictures = {"images": request["images"]}
    if "videos" in request:
        (frames,) = request["videos"]
        n = len(frames)
        metadata = VideoMetadata(total_num_frames=n, fps=2.0, frames_indices=list(range(n)), width=126, height=126, duration=n / 2)
        pictures = {"videos": [frames], "video_metadata": [metadata], "do_sample_frames": False}
    text = processor.apply_chat_template([{"role": "user", "content": request["content"]}], add_generation_prompt=True)
    inputs = processor(text=text, return_tensors="pt", **pictures)
    with torch.no_grad():
        output = model(**inputs)
        ids = model.generate(**inputs, max_new_tokens=12, eos_token_id=None, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :]
    kept = getattr(output, "kept_tokens", None)
    return {
        "inputs": dict(inputs),
        "logits": output.logits,
        "generated": new,
        "text": processor.tokenizer.decode(new),
        **({} if kept is None else {"kept_tokens": kept}),
    }


def main(folder: str, requests: str, out: str, *options: str) -> None:
    allow_torchvision()
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.set_num_threads(1)
    code = {"trust_remote_code": True} if "--trust_remote_code" in options else {}
    model = AutoModelForImageTextToText.from_pretrained(folder, **code).eval()
    processor = AutoProcessor.from_pretrained(folder, **code)
    answers = {name: answer(model, processor, r) for name, r in torch.load(requests, weights_only=False).items()}
    assert "olmo" not in sys.modules
    torch.save({"class": type(model).__name__, "dtype": str(model.dtype), "answers": answers}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
