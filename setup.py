"""Package metadata; nothing about it is said anywhere else."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1] for line in (ROOT / "imagen_diffusers" / "__init__.py").read_text().splitlines() if line.startswith("__version__")
)
# Most tests were run with these minimums, of which a few differ in last bits, and with torch 2.13; older releases of torch were not.
TRAIN = ["datasets>=4.5", "pandas", "peft>=0.20", "tensorboard"]
EVALUATION = ["matplotlib", "torchmetrics>=1.9"]
EMOJI = ["resvg-py>=0.5"]
WEB = ["gradio>=6.29", "starlette>=1.0.1"]

setup(
    name="imagen_diffusers",
    version=VERSION,
    description="Imagen on diffusers: text to a 1024px image by a cascade of pixel diffusion models",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["imagen_diffusers", "imagen_diffusers.*"]),
        "imagen_diffusers.hub_data.pipelines",
        "imagen_diffusers.hub_data.schedulers",
    ],
    # The Hub-layout folders stand at the root of the repository and travel inside the package.
    package_dir={
        "imagen_diffusers.hub_data.pipelines": "pipelines",
        "imagen_diffusers.hub_data.schedulers": "schedulers",
    },
    package_data={
        "imagen_diffusers": ["py.typed"],
        "imagen_diffusers.hub_data.pipelines": ["**/*.json", "**/*.safetensors", "**/*.md"],
        "imagen_diffusers.hub_data.schedulers": ["**/*.json"],
    },
    # 98 MB that most do not need; hub/places.py says where it is.
    exclude_package_data={"imagen_diffusers.hub_data.pipelines": ["imagen-emoji/*", "imagen-emoji/**/*"]},
    install_requires=[
        "torch>=2.7",
        "diffusers>=0.42",
        "transformers>=5.0",
        "accelerate>=1.0",
        "filelock>=3.13",
        "safetensors>=0.8",
        "huggingface-hub>=1.32",
        "numpy>=2.0",
        "pillow>=10.4",
        "tqdm>=4.66.3",
        "typer>=0.24",
        "jinja2>=3.1",
    ],
    extras_require={
        "train": TRAIN,
        "web": WEB,
        "evaluation": EVALUATION,
        "emoji": EMOJI,
        "deepfloyd": ["beautifulsoup4", "ftfy"],
        "onnx": ["onnx>=1.23", "onnxruntime>=1.32", "onnxscript>=0.7.2"],
        "openvino": ["onnx>=1.23", "onnxscript>=0.7.2", "openvino>=2026.4", "nncf>=3.4"],
        # A graph is opened by onnxruntime before it is given to JAX.
        "jax": ["jax>=0.10.2", "jaxonnxruntime>=0.3", "onnx>=1.23", "onnxruntime>=1.32"],
        "tensorflow": ["jax>=0.10.2", "jaxonnxruntime>=0.3", "onnx>=1.23", "onnxruntime>=1.32", "tensorflow>=2.21"],
        "bench": ["matplotlib"],
        # To test the page in a browser, which is the machine's own Chromium.
        "browser": [*WEB, "playwright"],
        # What imagen-pytorch needs, to compare with it; the package itself is installed by the Makefile, without torchvision.
        "reference": ["beartype", "click", "einops", "ema-pytorch", "kornia", "pydantic>=2", "pytorch-warmup", "sentencepiece"],
        "notebooks": ["ipykernel", "nbclient"],
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=1.0", "ruff"],
        "dev": [
            *[*TRAIN, *WEB, *EVALUATION, *EMOJI],
            *["pytest>=8.0", "pytest-xdist", "ruff", "pyright[nodejs]", "scipy", "setuptools>=77"],
            # Others bring these, and tests and benchmarks import them by name.
            *["fsspec", "gradio-client", "httpx", "pyarrow", "pyyaml", "tokenizers"],
        ],
    },
    entry_points={"console_scripts": ["imagen-diffusers=imagen_diffusers.cli:app"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
