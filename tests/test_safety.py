"""Finished images are looked at and marked where a pipeline has somebody to do so."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.deepfloyd_if import IFSafetyChecker
from diffusers.pipelines.deepfloyd_if.watermark import IFWatermarker
from transformers import CLIPConfig, CLIPImageProcessor

from imagen_diffusers import ImagenCascadePipeline, ImagenCascadeUpscalePipeline

from .conftest import make_pipeline, seeded

CALL = {"generator": seeded(), "num_inference_steps": 1, "stop_at": 2}


def draw(pipe, **more):
    return pipe(["a red cube", "a sphere"], **{**CALL, "generator": seeded(), **more})


def blackens_the_first(images: np.ndarray, clip_input: torch.Tensor | None) -> tuple[np.ndarray, list[bool]]:
    assert clip_input is None
    assert images.shape[-1] == 3
    images = images.copy()
    images[0] = 0
    return images, [True] + [False] * (len(images) - 1)


def test_nobody_looks_unless_asked() -> None:
    pipe = make_pipeline()
    assert pipe.safety_checker is None
    assert draw(pipe).nsfw_detected is None


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_a_function_can_be_the_checker(output_type) -> None:
    plain = draw(make_pipeline(), output_type=output_type)
    out = draw(make_pipeline(safety_checker=blackens_the_first), output_type=output_type)
    assert out.nsfw_detected == [True, False]
    assert draw(make_pipeline(safety_checker=blackens_the_first), output_type=output_type, stop_at=1, return_dict=False)[2] == [True, False]
    for stage, stage_plain in zip(out.stage_images, plain.stage_images, strict=True):
        assert not np.asarray(stage[0]).any()
        np.testing.assert_allclose(np.asarray(stage[1]), np.asarray(stage_plain[1]), atol=1e-6)


def test_a_checker_may_return_a_list_of_images() -> None:
    def lists(images: np.ndarray, clip_input: torch.Tensor | None) -> tuple[list[np.ndarray], list[bool]]:
        return list(images), [False] * len(images)

    expected = draw(make_pipeline())
    out = draw(make_pipeline(safety_checker=lists))
    assert out.nsfw_detected == [False, False]
    assert [image.tobytes() for image in out.images] == [image.tobytes() for image in expected.images]


def test_deepfloyds_checker_and_watermark_fit(tmp_path) -> None:
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 8}
    config = CLIPConfig(vision_config={**tiny, "image_size": 32, "patch_size": 16}, text_config={**tiny, "vocab_size": 16})
    torch.manual_seed(0)
    checker = IFSafetyChecker(config)
    checker.p_head.weight.data.zero_()
    checker.p_head.bias.data.fill_(1.0)  # all images are unsafe
    checker.w_head.weight.data.zero_()
    checker.w_head.bias.data.zero_()
    watermarker = IFWatermarker()
    watermarker.watermark_image[...] = 255
    parts = {"safety_checker": checker, "feature_extractor": CLIPImageProcessor(size=32, crop_size=32), "watermarker": watermarker}
    pipe = ImagenCascadeUpscalePipeline.from_pipe(make_pipeline(**parts))  # the mark is smaller than a pixel of our smallest images
    small = {"image": torch.zeros(2, 3, 16, 16)}
    out = draw(pipe, **small)
    assert out.nsfw_detected == [True, True]
    assert np.asarray(out.images[0]).any()  # the mark on black
    assert np.asarray(out.images[0]).mean() < 40
    pipe.safety_checker = None  # transformers 5 does not load IF's
    out = draw(pipe, **small)
    pipe.save_pretrained(tmp_path)
    again = ImagenCascadeUpscalePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.watermarker, IFWatermarker)
    assert isinstance(again.feature_extractor, CLIPImageProcessor)
    assert draw(again, **small).images[0].tobytes() == out.images[0].tobytes()


def test_a_watermark_is_for_pil_images() -> None:
    with pytest.raises(ValueError, match='give "pil"'):
        draw(make_pipeline(watermarker=IFWatermarker()), output_type="pt")


def test_a_checker_that_cannot_be_saved_is_left_out_of_the_folder(tmp_path) -> None:
    make_pipeline(safety_checker=blackens_the_first).save_pretrained(tmp_path)
    assert ImagenCascadePipeline.from_pretrained(tmp_path).safety_checker is None
