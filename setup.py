"""Package metadata: `pip install -c constraints.txt -e .` for work on the project, extras for what not everybody needs."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "olmo/version.py").read_text(), re.M).group(1)

CORE = [
    "torch>=2.10",
    "numpy>=2.0",
    "omegaconf>=2.3",
    "pyyaml>=6.0",
    "transformers>=4.57",
    "safetensors>=0.5",
    "av>=14",
    "decord>=0.6.0; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "pillow>=11",
    "rich>=13",
    "jinja2>=3.1",
    "matplotlib>=3.9",
]
EXTRAS = {
    "gpu": ["torchvision>=0.25", "flash-attn>=2.6"],
    "wandb": ["wandb>=0.19"],
    "tensorboard": ["tensorboard>=2.18"],
    "video": ["torchcodec>=0.10"],
    "data": ["pyarrow>=17"],
    # Matching of points, and HOTA (whose package pulls opencv-python, which nothing here uses).
    "eval": ["scipy>=1.15", "trackeval>=1.3"],
    "cloud": ["s3fs>=2025.9"],
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.12",
        "setuptools>=77",
        "torchvision>=0.25",
        "wandb>=0.19",
        "tensorboard>=2.18",
        "pyarrow>=17",
        # trackeval itself is installed without what it pulls, see constraints.txt.
        "scipy>=1.15",
        "pycocotools>=2.0.10",
        "tabulate>=0.9",
        "s3fs>=2025.9",
        "boto3>=1.40",
        "moto[s3]>=5.1",
        "flask>=3",
        "flask-cors>=5",
    ],
}
EXTRAS["dev"] = EXTRAS["test"]

# `configs/` stands beside the code in a checkout and becomes `olmo/configs/` when installed.
CONFIG_PACKAGES = {"olmo.configs": "configs", "olmo.configs.tiny_tokenizer": "configs/tiny_tokenizer"}

setup(
    name="olmo",
    version=VERSION,
    description="Molmo2 video-language models with unified spatio-temporal token scoring (STTS)",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"lmms_eval.models": ["molmo2_stts = olmo.plugins:lmms_eval_models"]},
    packages=[*find_namespace_packages(include=["olmo", "olmo.*"], exclude=["*.__pycache__"]), *CONFIG_PACKAGES],
    package_dir=CONFIG_PACKAGES,
    package_data={"": ["py.typed", "*.yaml", "*.json", "*.txt", "*.jinja", "*.j2", "*.html", "*.css"]},
)
