"""Folders saved by the first releases load, whatever the classes in them are called now, and give the images they gave then."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imagen_diffusers import ImagenCascadePipeline, LucidrainsScheduler, LucidrainsUNet2DConditionModel

from .conftest import seeded

SAVED = Path(__file__).parent / "saved"  # small random networks, and their images of this prompt and seed


@pytest.mark.parametrize("name", ["cascade", "imagen_pytorch"])
def test_a_saved_folder_gives_what_it_gave(name) -> None:
    pipe = ImagenCascadePipeline.from_pretrained(SAVED / name)
    pipe.set_progress_bar_config(disable=True)
    stages = pipe("a red cube", negative_prompt="a sphere", generator=seeded(), output_type="pt").stage_images
    expected = load_file(SAVED / f"{name}.safetensors")
    assert len(stages) == len(expected)
    for stage, image in enumerate(stages, start=1):
        # float32 in another order of adding: processors differ by less than this after all steps
        torch.testing.assert_close(image, expected[f"stage_{stage}"], rtol=0, atol=1e-5)


def test_former_names_are_the_classes_of_now() -> None:
    import imagen_diffusers

    assert imagen_diffusers.ImagenPytorchUNet2DConditionModel is LucidrainsUNet2DConditionModel
    assert imagen_diffusers.ImagenPytorchScheduler is LucidrainsScheduler
    pipe = ImagenCascadePipeline.from_pretrained(SAVED / "imagen_pytorch")
    assert (type(pipe.unet), type(pipe.scheduler)) == (LucidrainsUNet2DConditionModel, LucidrainsScheduler)
