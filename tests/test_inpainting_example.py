"""The worked example of conditioning images: masks, what they leave, and the run from the bundled base to a table."""

import numpy as np
import pytest
import torch

from examples.inpainting import train
from examples.inpainting.train import CHANNELS, Measured, condition, masked, random_mask
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.models.conditioning_images import with_cond_channels
from imagen_diffusers.training.checkpoints import list_checkpoints

from .conftest import make_base, make_pipeline, seeded

ALONE = {"unet_2": None, "unet_3": None, "scheduler_2": None, "scheduler_3": None}


def make_small() -> ImagenCascadePipeline:
    return make_pipeline(unet=make_base(sample_size=64, patch_size=4), **ALONE, num_inference_steps=(2,), guidance_scale=(2.0,))


def test_masks_hide_a_part_of_every_image_each_time_another_one() -> None:
    masks = [random_mask(64, np.random.default_rng(i)) for i in range(100)]
    shares = torch.stack(masks).float().mean((1, 2, 3))
    assert all(mask.dtype == torch.uint8 and mask.shape == (1, 64, 64) and mask.max() == 1 for mask in masks)
    assert shares.min() > 0.01 and shares.max() < 0.9 and 0.15 < shares.mean() < 0.5
    assert torch.equal(masks[3], random_mask(64, np.random.default_rng(3))) and not torch.equal(masks[3], masks[4])


def test_a_condition_tells_what_is_known_and_no_more() -> None:
    image = torch.randint(1, 256, (3, 64, 64), generator=seeded(), dtype=torch.uint8)
    given = masked(image, np.random.default_rng(0))
    assert given.dtype == torch.uint8 and given.shape == (CHANNELS, 64, 64)
    hidden = given[0] == 255
    assert not given[0][~hidden].any()
    assert torch.equal(given[1:, ~hidden], image[:, ~hidden]) and not given[1:, hidden].any()
    other = torch.where(hidden, 255 - image, image)
    assert torch.equal(condition(other, hidden[None].byte()), given)


def test_errors_are_of_the_hidden_and_of_the_known(tmp_path) -> None:
    pipe = make_small()
    measured, plain = Measured(pipe, 3, tmp_path), pipe.unet
    wider = with_cond_channels(plain, CHANNELS)
    (before, _), (after, images) = measured.figures(plain), measured.figures(wider)
    assert before == after  # until it is trained it generates what the base does
    errors = (2 * images - 1 - (measured.images / 127.5 - 1)).square().mean(1, keepdim=True)
    hidden = measured.hidden == 1
    assert after[:2] == pytest.approx([errors[hidden].mean().item(), errors[~hidden].mean().item()], rel=1e-5)
    assert len(after) == len(measured.filled()) == 2 + len(train.LOG_SNRS)
    colors = [image[:, ~mask[0]].mean(1) for image, mask in zip(measured.truth, hidden, strict=True)]
    wrong = [(image[:, mask[0]] - c[:, None]).square() for image, mask, c in zip(measured.truth, hidden, colors, strict=True)]
    assert measured.filled()[0] == pytest.approx(torch.cat(wrong, 1).mean().item(), rel=1e-4)


@pytest.mark.thorough
def test_the_example_trains_measures_and_is_sampled_from(tmp_path, capsys) -> None:
    make_small().save_pretrained(tmp_path / "cascade")
    given = ["--pretrained_model_name_or_path", tmp_path / "cascade", "--output_dir", tmp_path / "out", "--folder", tmp_path / "renders"]
    given += ["--scenes", 4, "--measured", 2, "--train_batch_size", 2, "--mixed_precision", "no", "--dataloader_num_workers", 0]
    given += ["--checkpointing_steps", 1, "--report_to", "none", "--max_sequence_length", 12]
    for steps in (2, 3, 3):  # the last time it measures alone
        train.main([str(word) for word in [*given, "--max_train_steps", steps]])
    assert [p.name for p in list_checkpoints(tmp_path / "out")] == ["checkpoint-2", "checkpoint-3"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6].startswith("| hidden pixels")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[-4:]]
    alone, repainted = "the base, by the prompt alone", "the base, repainting, each step 4 times"
    assert [row[0] for row in rows] == ["mean colour of the known pixels", alone, repainted, "the inpainting network"]
    assert rows[2][2:] == ["0.0", "", "", ""] and rows[2][1] != rows[1][1]
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "out" / "pipeline")
    image, mask = torch.randint(0, 256, (3, 64, 64), generator=seeded(), dtype=torch.uint8), torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, 20:40, 20:40] = 1
    out = pipe("a red cube", cond_images=condition(image, mask), generator=seeded(), output_type="pt").images
    assert out.shape == (1, 3, 64, 64)
    assert (tmp_path / "out" / "inpainted.png").exists()
