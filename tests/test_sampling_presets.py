"""Named ways to sample: solver and steps change, what a checkpoint was trained with stays."""

import diffusers
import pytest
import torch

from imagen_diffusers import ImagenCascadePipeline, SamplingPreset, bundled

from .conftest import make_pipeline
from .test_cascade import draw

NAMES = ("quality", "balanced", "fast")
KEPT = ("prediction_type", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")


def stages(pipe) -> list:
    return pipe.stages(pipe.stage_numbers)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_changes_solver_and_steps_and_nothing_that_was_trained(pipe, name) -> None:
    before = stages(pipe)
    pipe.use_preset(name)
    told = SamplingPreset.from_pretrained(bundled(name)).config["stages"]
    for old, new, entry in zip(before, stages(pipe), told, strict=True):
        assert type(new.scheduler).__name__ == entry["scheduler"]["_class_name"]
        assert new.scheduler.config["timestep_spacing"] == entry["scheduler"]["timestep_spacing"]
        assert new.num_inference_steps == entry["num_inference_steps"]
        assert (new.guidance_scale, new.noise_level) == (old.guidance_scale, old.noise_level)
        assert all(new.scheduler.config[key] == old.scheduler.config[key] for key in KEPT)
        torch.testing.assert_close(new.scheduler.alphas_cumprod, old.scheduler.alphas_cumprod)
    assert torch.isfinite(draw(pipe, num_inference_steps=2).images).all()


def test_presets_go_from_careful_to_quick(pipe) -> None:
    counts = []
    for name in NAMES:
        pipe.use_preset(bundled(name))
        counts.append([len(s.prepared_scheduler(pipe.device).timesteps) for s in stages(pipe)])
    assert counts[0] > counts[1] > counts[2]
    assert all(a >= b >= c for a, b, c in zip(*counts, strict=True))


def test_balanced_is_how_the_bundled_cascade_comes() -> None:
    pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), variant="fp16", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    told = [(dict(s.scheduler.config), s.num_inference_steps, s.guidance_interval) for s in stages(pipe)]
    image = draw(pipe, "a red cube", stop_at=1, num_inference_steps=3).images
    pipe.use_preset(bundled("balanced"))
    assert [s.num_inference_steps for s in stages(pipe)] == [n for _, n, _ in told]
    assert [s.guidance_interval for s in stages(pipe)] == [interval for _, _, interval in told]
    assert torch.equal(draw(pipe, "a red cube", stop_at=1, num_inference_steps=3).images, image)


def test_a_preset_is_saved_with_the_pipeline_and_alone(pipe, tmp_path) -> None:
    pipe.use_preset(bundled("fast"))
    pipe.save_pretrained(tmp_path / "pipe")
    again = ImagenCascadePipeline.from_pretrained(tmp_path / "pipe")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again).images, draw(pipe).images)

    own = {"_class_name": "UniPCMultistepScheduler", "solver_order": 3}
    entry = {"scheduler": own, "num_inference_steps": 5, "guidance_interval": [0.2, 0.8]}
    SamplingPreset(stages=[entry] * 3).save_config(tmp_path / "mine")
    pipe.use_preset(tmp_path / "mine")
    assert type(pipe.scheduler_2) is diffusers.UniPCMultistepScheduler
    assert [(s.num_inference_steps, s.guidance_interval) for s in stages(pipe)] == [(5, (0.2, 0.8))] * 3


def test_a_preset_without_intervals_guides_all_steps(pipe) -> None:
    pipe.register_to_config(guidance_interval=[[0.0, 0.5]] * 3)
    pipe.use_preset(SamplingPreset(stages=[{"scheduler": {"_class_name": "ImagenDDIMScheduler"}, "num_inference_steps": 3}] * 3))
    assert [(s.num_inference_steps, s.guidance_interval) for s in stages(pipe)] == [(3, (0.0, 1.0))] * 3


def test_presets_that_do_not_fit_change_nothing(pipe) -> None:
    scheduler = pipe.scheduler
    short = SamplingPreset(stages=[{"scheduler": {"_class_name": "DDIMScheduler"}, "num_inference_steps": 3, "guidance_interval": [0, 1]}])
    unknown = {"scheduler": {"_class_name": "Magic"}, "num_inference_steps": 3, "guidance_interval": [0, 1]}
    fine = {**unknown, "scheduler": {"_class_name": "ImagenDDIMScheduler"}}
    for preset, message in (
        (short, "is for 1 stages"),
        (SamplingPreset(stages=[fine, fine, unknown]), '"Magic" is in neither'),
        (SamplingPreset(stages=[fine, fine, {"scheduler": fine["scheduler"]}]), "says no num_inference_steps for stage 3"),
        (SamplingPreset(stages=[fine, {"num_inference_steps": 3}, fine]), "says no scheduler for stage 2"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.use_preset(preset)
        assert pipe.scheduler is scheduler
    with pytest.raises(ValueError, match=r"assign pipe\.scheduler"):
        make_pipeline(scheduler=None).use_preset(bundled("fast"))


@pytest.mark.parametrize("written", ["{}", '{"stages": {"a": 1}}', '{"stages": [1, 2, 3]}', '{"stages": 5}', "[1]"])
def test_a_file_that_is_no_preset_is_said(pipe, tmp_path, written) -> None:
    (tmp_path / "sampling_preset.json").write_text(written)
    with pytest.raises(ValueError, match="a preset's stages are|holds no object; a preset is one"):
        pipe.use_preset(tmp_path)
    with pytest.raises(ValueError, match="a preset's stages are None; give a list with one entry for each stage"):
        SamplingPreset()


def test_entries_that_no_stage_can_be_sampled_by_change_nothing(pipe) -> None:
    before = {name: getattr(pipe, name) for name in ("scheduler", "scheduler_2", "scheduler_3")}
    config = dict(pipe.config)
    fine = {"scheduler": {"_class_name": "ImagenDDIMScheduler"}, "num_inference_steps": 3, "guidance_interval": [0, 1]}
    for change, message in (
        ({"scheduler": {"_class_name": "UNet2DConditionModel"}}, '"UNet2DConditionModel" is none, or lacks'),
        ({"scheduler": {"_class_name": "bundled"}}, '"bundled" is none, or lacks'),
        ({"scheduler": {"_class_name": 5}}, "scheduler for stage 2 is .* give its class and options"),
        ({"scheduler": {"timestep_spacing": "trailing"}}, "scheduler for stage 2 is .* give its class and options"),
        ({"scheduler": "DDIMScheduler"}, "scheduler for stage 2 is DDIMScheduler; give its class and options"),
        ({"scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler"}}, "FlowMatchEulerDiscreteScheduler cannot drive this cascade"),
        ({"scheduler": {"_class_name": "EDMEulerScheduler"}}, "unet_2 cannot be driven by an EDM scheduler"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be a number of at least 1"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5; it must be a whole number"),
        ({"num_inference_steps": "many"}, "num_inference_steps is 'many'"),
        ({"num_inference_steps": 5000}, "5000"),
        ({"guidance_interval": [0.8, 0.2]}, r"guidance_interval is \(0.8, 0.2\)"),
        ({"guidance_interval": 0.5}, "guidance_interval is 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.use_preset(SamplingPreset(stages=[fine, {**fine, **change}, fine]))
        assert all(getattr(pipe, name) is scheduler for name, scheduler in before.items())
        assert dict(pipe.config) == config


def test_what_a_preset_cannot_say_is_named(pipe) -> None:
    strange = {"scheduler": {"_class_name": "ImagenDDIMScheduler"}, "num_inference_steps": 3, "guidance_scale": 5}
    with pytest.raises(ValueError, match="the preset says guidance_scale for stage 1; it can say scheduler, num_inference_steps, guida"):
        pipe.use_preset(SamplingPreset(stages=[strange] * 3))
