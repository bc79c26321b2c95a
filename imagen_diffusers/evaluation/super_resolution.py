"""A super-resolution stage on true images made small, against bicubic enlargement: how near both come to what the images were."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imagen_diffusers.extras import install
from imagen_diffusers.images import read_image
from imagen_diffusers.pipelines.cascade import Cascade
from imagen_diffusers.pipelines.image_inputs import images_to_tensor
from imagen_diffusers.pipelines.pipeline_imagen_cascade_upscale import ImagenCascadeUpscalePipeline
from imagen_diffusers.pipelines.sizes import reference_size

from .digests import file_digest, text_digest, weights_digest
from .figures import Figure
from .generating import eight_bits
from .groups import Measured
from .metrics import Metric, Rows, all_figures, entries, figure_of, joined, measure_all
from .resizing import resized

SETS = ("true", "stage", "bicubic")  # what is measured: true images, and the two enlargements of them made small
Fidelity = Callable[[Tensor, Tensor], Tensor]  # images and true ones (B, 3, H, W) in [0, 1] to (B,)


class Enlarging(NamedTuple):
    """One stage, measured on the images that the rows name.

    Args:
        stage: counted from 1.
        folder: in which each row's "file_name" is.
        fidelities: of images to true ones, by name, those of `fidelities()`.
    """

    stage: int
    folder: Path
    fidelities: dict[str, Fidelity]

    @property
    def name(self) -> str:
        return f"stage-{self.stage}"

    def check(self, pipe: Cascade, rows: Rows) -> None:
        """Look at what the files say of the images before any is enlarged.

        Raises:
            ValueError: for a stage that enlarges nothing, rows without an image, and images that are too small.
        """
        networks = pipe.networks
        if self.stage not in networks or not networks[self.stage].has_low_res:
            there = [n for n, network in networks.items() if network.has_low_res]
            raise ValueError(f"stage {self.stage} enlarges nothing in this pipeline; its super-resolution stages are {there}")
        size = networks[self.stage].sample_size
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("file_name"), str):
                raise ValueError(f'row {number} names no image; super-resolution is measured on true images, by a column "file_name"')
            width, height = read_image(self.folder / row["file_name"]).size
            if min(width, height) < size:
                told = f"{row['file_name']} is {width}x{height}, and stage {self.stage} makes images of {size}px"
                raise ValueError(f"{told}; give true images of at least {size}px on the short side")

    def fingerprint(self, rows: Rows) -> dict[str, Any]:
        """What decides what is measured beside the stage: the bytes of the true images, and how nearness to them is measured."""
        digests = [file_digest(str(self.folder / row["file_name"])) for row in rows]
        nearness = {name: weights_digest(f.state_dict()) if isinstance(f, nn.Module) else "" for name, f in self.fidelities.items()}
        return {"files": text_digest(" ".join(digests)), "compared by": nearness}

    def measuring(
        self, pipe: Cascade, rows: Rows, metrics: Sequence[Metric], seed: int, keep: Callable[[Tensor, range], None]
    ) -> Callable[[range], Measured]:
        """What `fill` calls: everything of `SETS`, measured, for the images of a group; `keep` is given those of the stage."""
        enlarger = ImagenCascadeUpscalePipeline.from_pipe(pipe)
        enlarger.set_progress_bar_config(disable=True)
        large = pipe.networks[self.stage].sample_size
        small = reference_size(pipe.networks, self.stage)

        def measure(chosen: range) -> Measured:
            some = [rows[i] for i in chosen]
            true = torch.cat([square(self.folder / row["file_name"], large) for row in some])
            low = eight_bits(resized(true, (small, small)))
            generators = [torch.Generator().manual_seed(seed + i) for i in chosen]
            call = {"start_at": self.stage, "stop_at": self.stage, "generator": generators, "output_type": "pt"}
            prompts = [row["prompt"] for row in some] if pipe.takes_text else None
            made: Any = enlarger(prompts, image=low, **call)
            sets = {"true": true, "stage": eight_bits(made.images), "bicubic": eight_bits(resized(low, (large, large)))}
            keep(sets["stage"], chosen)
            measured = {f"{of}/{name}": x for of in SETS for name, x in measure_all(metrics, sets[of], some).items()}
            for of in SETS[1:]:
                measured |= {f"{of}/fidelity/{name}": entries(f(sets[of], true).tolist()) for name, f in self.fidelities.items()}
            return measured

        return measure

    def figures(self, measured: Measured, metrics: Sequence[Metric]) -> dict[str, dict[str, Figure]]:
        """Of the stage's images, of bicubic ones, and of the true images, which no other true ones stand beside."""
        own = {of: {name.partition("/")[2]: x for name, x in measured.items() if name.startswith(f"{of}/")} for of in SETS}
        columns = {}
        for of in ("stage", "bicubic", "true"):
            near = {name.partition("/")[2]: figure_of(x) for name, x in own[of].items() if name.startswith("fidelity/")}
            beside = None if of == "true" else own["true"]
            columns[self.name if of == "stage" else f"{self.name}, {of}"] = joined([near, all_figures(metrics, own[of], beside)])
        return {name: figures for name, figures in columns.items() if figures}


def square(path: Path, size: int) -> Tensor:
    """The middle of an image, as a square (1, 3, size, size) in [0, 1], antialiased, of 256 levels."""
    image = images_to_tensor(str(path), read_image(path))
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return eight_bits(resized(image[..., top : top + side, left : left + side], (size, size)))


def fidelities(lpips: Path | None = None) -> dict[str, Fidelity]:
    """PSNR in decibels and SSIM, of each image by itself, and LPIPS where its weights are given.

    Raises:
        ImportError: without torchmetrics.
        ValueError: for a file of other weights.
    """
    try:
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    except ImportError:
        raise ImportError(f"PSNR and SSIM need torchmetrics: {install('evaluation')}") from None

    def psnr(images: Tensor, true: Tensor) -> Tensor:
        return peak_signal_noise_ratio(images, true, data_range=1.0, reduction="none", dim=(1, 2, 3))

    def ssim(images: Tensor, true: Tensor) -> Tensor:
        return structural_similarity_index_measure(images, true, data_range=1.0, reduction="none")  # pyright: ignore

    found: dict[str, Fidelity] = {"PSNR": psnr, "SSIM": ssim}
    if lpips is not None:
        from .lpips import Lpips

        found["LPIPS"] = Lpips(lpips)
    return found
