"""The text that a model is given, written out so that it can be read and compared."""

from collections.abc import Sequence
from itertools import groupby

from olmo.tokenizer import Tokenizer


def prompt_text(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The exact text of token ids; a run of one visual token is written once with its length: `<im_patch>[81]`.

    Unlike `Tokenizer.decode` it leaves out nothing: marks of the chat double as the end of a sequence in some tokenizers.
    """
    special = {number: text for text, number in tokenizer.special_ids.items()}
    parts = []
    for visual, run in groupby((int(i) for i in ids if i >= 0), key=special.get):
        run = list(run)
        if visual is None:
            parts.append(tokenizer.core.decode(run, skip_special_tokens=False))
        else:
            parts.append(visual if len(run) == 1 else f"{visual}[{len(run)}]")
    return "".join(parts)
