"""Copies the modules of the pruned model into a folder, ready to be loaded by transformers."""

import ast
import re
from pathlib import Path
from typing import Any

import olmo
from olmo import tokenizer
from olmo.hf_model.config import OWN_BLOCK, PRUNED_MODEL_TYPE, own_block
from olmo.models.molmo2.config import Molmo2Config

PACKAGE = Path(olmo.__file__).parent
TEMPLATES = Path(__file__).parent / "templates"
REPLACED = {
    "olmo.config": "config.py.txt",
    "olmo.tokenizer": "tokenizer.py.txt",
    "olmo.models.molmo2.config": "model_config.py.txt",
    "olmo.models.temporal_video_olmo.config": "model_config.py.txt",
    "olmo.hf.inputs": "inputs.py.txt",
    "olmo.hf.configuration": "configuration.py.txt",
    "olmo.hf.modeling": "modeling.py.txt",
}
"""Modules that a folder has in another form than the package -> their files in `templates/`."""
ENTRY_POINTS = {"olmo.hf.configuration": "configuration_molmo2_stts", "olmo.hf.modeling": "modeling_molmo2_stts"}
"""Modules that `config.json` names -> their files, called as transformers' are."""
_IMPORT = re.compile(r"^(\s*)from (olmo[\w.]*) import", re.MULTILINE)
_FLASH = "from flash_attn import flash_attn_varlen_func"
_HEADER = '# Copied from {name} of the package "olmo" {version} by its export. Changes belong there.\n'


REFUSAL = "this model drops visual tokens: load it with AutoModelForImageTextToText and trust_remote_code=True"


def pruned_config(config: Molmo2Config) -> dict[str, Any]:
    """`config.json` of a pruned model.

    Transformers' class of unpruned models, named outright, would build itself from its defaults: `text_config` is a sentence
    where it wants settings, so it stops and shows the sentence.
    """
    configuration, modeling = ENTRY_POINTS.values()
    return {
        "model_type": PRUNED_MODEL_TYPE,
        "architectures": ["Molmo2SttsForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": f"{configuration}.Molmo2SttsConfig",
            "AutoModelForImageTextToText": f"{modeling}.Molmo2SttsForConditionalGeneration",
        },
        "text_config": REFUSAL,
        "tie_word_embeddings": False,
        OWN_BLOCK: own_block(config),
    }


def write_remote_code(folder: Path) -> None:
    """All modules of the pruned model as files of `folder`."""
    for name, text in remote_modules().items():
        (folder / f"{file_stem(name)}.py").write_text(text)


def remote_modules() -> dict[str, str]:
    """Module name -> text of its file, for every module that the entry points lead to."""
    waiting, found = list(ENTRY_POINTS), {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            source = source_of(name)
            found[name] = _HEADER.format(name=name, version=olmo.__version__) + point_inside(source)
            waiting += [node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and is_ours(node.module)]
    return found


def is_ours(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == "olmo"


def source_of(name: str) -> str:
    """The text of a module as the folder has it, imports still those of the package."""
    if name not in REPLACED:
        return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py").read_text()
    text = (TEMPLATES / REPLACED[name]).read_text()
    if name == "olmo.tokenizer":
        for constant in ("SPECIAL_TOKENS", "IMAGE_TOKENS", "SEGMENT_STARTS"):
            value = getattr(tokenizer, constant)
            text = re.sub(rf"^({constant}: .*) = \S+  # filled in by the export$", rf"\1 = {value!r}", text, flags=re.M)
    return text


def point_inside(source: str) -> str:
    """Imports of the package become imports of the files beside this one; packages that only some machines have are asked for later.

    transformers refuses code whose imports cannot all be found, even those of a kernel that is not going to be used.
    """
    source = _IMPORT.sub(lambda found: f"{found[1]}from .{file_stem(found[2])} import", source)
    return source.replace(_FLASH, 'flash_attn_varlen_func = __import__("flash_attn").flash_attn_varlen_func')


def file_stem(name: str) -> str:
    """`olmo.nn.attention` -> `olmo_nn_attention`."""
    return ENTRY_POINTS.get(name, name.replace(".", "_"))
