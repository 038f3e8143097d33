"""A tiny SigLIP of two towers with random weights and a tokenizer of words, as transformers writes them into a folder."""

from pathlib import Path

import torch

WORDS = "this photo has : a red blue green star circle what colour is the ? moves left right".split()


def write_encoder(folder: Path, seed: int = 0) -> Path:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    names = ["<pad>", "<eos>", "<unk>", "This", *WORDS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>"))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>").save_pretrained(folder)
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(names), "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    torch.manual_seed(seed)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=tower | {"image_size": 32, "patch_size": 8}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
        model.text_model.embeddings.token_embedding.weight *= 30  # louder than places, and the padding quieter than words
        model.text_model.embeddings.token_embedding.weight[0] *= 0.01
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
