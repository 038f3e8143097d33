"""torchvision beside a torch that cannot load its compiled operators.

The Hugging Face processors resize with torchvision, of which they use the Python part only. Where torchvision was built for
another torch (the CUDA build beside a CPU torch is common), importing it fails, because it describes operators that are not
there. Declaring their names is enough to import it; calling such an operator fails as before.
"""

import importlib.util
from pathlib import Path

OPERATORS = ("nms", "qnms", "roi_align", "qroi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
_declared = []  # a library takes its operators along when it goes


def declare_missing_operators() -> bool:
    """Make `import torchvision` work; returns whether torchvision is installed at all. Cheap, and harmless when repeated."""
    found = importlib.util.find_spec("torchvision")
    if found is None:
        return False
    import torch

    if _declared or hasattr(torch.ops.torchvision, "nms"):
        return True
    try:
        torch.ops.load_library(next(Path(found.origin).parent.glob("_C*.so")))
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in OPERATORS:
            library.define(f"{name}(Tensor x) -> Tensor")
            library.define(f"_{name}_backward(Tensor x) -> Tensor")
        _declared.append(library)
    return True
