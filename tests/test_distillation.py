"""Guidance distilled into an adapter: what is learned, that the teacher is the network without it, and the script."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from examples import distill_guidance
from examples.scenes import guidance
from imagen_diffusers import ImagenCascadeImg2ImgPipeline, ImagenCascadePipeline
from imagen_diffusers.finetuning.distilling import GuidanceSettings, sample_without_guidance, scales_to_distill
from imagen_diffusers.models.learned_guidance import learned_guidance
from imagen_diffusers.models.lora import add_lora, chosen_adapters, lora_layers, lora_metadata, trained_adapter
from imagen_diffusers.pipelines.lora_files import moved_to_stage
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.schedulers.noise import q_sample
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.training.distillation import begin_distillation
from imagen_diffusers.training.losses import DistillationSettings, stage_loss

from .conftest import TEXT_DIM, make_base, make_pipeline, make_sr, seeded
from .test_deepfloyd import base_network
from .test_examples import cascade, flags, images  # noqa: F401 (fixtures)
from .test_lora import adapter_of
from .test_losses import TABLE, draws_of
from .test_sharing import run_usage

COUNT = 4


def batch(unet) -> dict:
    """Four images with text, and what else the network takes."""
    side = unet.config["sample_size"]
    text = TextEmbedding(torch.randn(COUNT, 5, TEXT_DIM, generator=seeded(1)), torch.ones(COUNT, 5, dtype=torch.bool))
    given = {"images": torch.rand(COUNT, 3, side, side, generator=seeded()) * 2 - 1, "text": text}
    return given | ({"low_res": torch.rand(COUNT, 3, side // 2, side // 2, generator=seeded(2)) * 2 - 1} if adapt(unet).has_low_res else {})


def loss_of(unet, settings: DistillationSettings, **changes):
    draws = draws_of(COUNT, settings, shape=(3, unet.config["sample_size"], unet.config["sample_size"]))
    return stage_loss(adapt(unet), draws=draws, log_snr_table=TABLE, settings=settings, **{**batch(unet), **changes})


@pytest.mark.parametrize("make", [make_base, make_sr, base_network])
def test_an_adapter_that_changes_nothing_lacks_what_guidance_adds(make) -> None:
    """(w - 1)(with text - without), and nothing where there is no text, nor of a variance, which is taught unguided."""
    settings = DistillationSettings(prediction_type="sample", distilled_guidance=3.0, text_dropout=0.5)
    unet = make()
    plain, given = adapt(unet), batch(unet)
    side = unet.config["sample_size"]
    draws = draws_of(COUNT, settings, shape=(3, side, side))
    times = plain.trained_at(draws.times * (len(TABLE) - 1))
    noisy, level = q_sample(given["images"], draws.noise, plain.log_snr(TABLE, times)), draws.level * settings.max_noise_level
    low_res = plain.condition(given["low_res"], draws.low_res_noise, level) if "low_res" in given else None
    none = TextEmbedding(torch.zeros_like(given["text"].embeds), given["text"].mask)
    with torch.no_grad():
        of_text, of_none = (plain.predict(noisy, times, plain.arguments(text, low_res, level))[:, :3] for text in (given["text"], none))
    dropped = draws.text < 0.5
    assert 0 < dropped.sum() < COUNT
    expected = (4 * (of_text - of_none).square().mean((1, 2, 3))) * ~dropped / (2 if plain.learns_variance else 1)

    add_lora(unet, rank=2)
    errors = loss_of(unet, settings).errors
    # Float32's rounding of predictions around 1, squared.
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-10)
    assert expected.max() > 1e-6


def test_the_teacher_has_neither_adapter_nor_dropout() -> None:
    """An adapter that was trained before is no part of it; network and adapter are afterwards as they were."""
    settings = DistillationSettings(prediction_type="sample", distilled_guidance=2.0, text_dropout=0.0)
    unet = make_base(dropout=0.5)
    add_lora(unet, rank=2)
    taught: list[torch.Tensor] = []
    network = adapt(unet)
    predict = network.predict

    def watched(*given):
        output = predict(*given)
        if not torch.is_grad_enabled():
            taught.append(output)
        return output

    network.predict = watched  # pyright: ignore[reportAttributeAccessIssue]
    unet.train()
    before = {name: p.requires_grad for name, p in unet.named_parameters()}
    draws = draws_of(COUNT, settings, shape=(3, 16, 16))
    for _ in range(2):
        losses = stage_loss(network, draws=draws, log_snr_table=TABLE, settings=settings, **batch(unet)).losses
        losses.mean().backward()
        assert unet.training and {name: p.requires_grad for name, p in unet.named_parameters()} == before
        with torch.no_grad():
            for name, p in unet.named_parameters():
                if ".lora_" in name:
                    p.add_(0.1)
    assert len(taught) == 4
    assert torch.equal(taught[0], taught[2]) and torch.equal(taught[1], taught[3])
    gradients = {name for name, p in unet.named_parameters() if p.grad is not None}
    assert gradients == {name for name in before if before[name]} != set()


def test_a_frozen_adapter_acts_in_teacher_and_pupil() -> None:
    """The network that has learned a look teaches: an adapter that changes nothing yet lacks what guidance adds, and the look stays."""
    settings = DistillationSettings(prediction_type="sample", distilled_guidance=3.0, text_dropout=0.0)
    unet = make_base()
    add_lora(unet, rank=2, name="look")
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.2, generator=seeded())
    fused = deepcopy(unet)
    fused.fuse_lora()
    fused.unload_lora()
    add_lora(fused, rank=2, name="guidance")
    add_lora(unet, rank=2, name="guidance")
    unet.set_adapters(["look", "guidance"])
    for name, weight in unet.named_parameters():
        if ".look." in name:
            weight.requires_grad_(False)
    expected = loss_of(fused, settings).losses
    torch.testing.assert_close(loss_of(unet, settings).losses, expected, rtol=1e-4, atol=1e-8)
    assert trained_adapter(unet) == "guidance" and chosen_adapters(unet) == ["look", "guidance"]


def test_a_learned_variance_is_taught_too() -> None:
    """As it was with text, which sampling takes under guidance; left out of the loss, an adapter would change it as it goes."""
    settings = DistillationSettings(prediction_type="epsilon", distilled_guidance=3.0, text_dropout=0.0)
    unet = base_network()
    add_lora(unet, rank=2)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.2, generator=seeded())
    outputs = []
    network = adapt(unet)
    predict = network.predict
    network.predict = lambda *given: outputs.append(predict(*given)) or outputs[-1].clone()  # pyright: ignore[reportAttributeAccessIssue]
    draws = draws_of(COUNT, settings, shape=(3, 16, 16))
    errors = stage_loss(network, draws=draws, log_snr_table=TABLE, settings=settings, **batch(unet)).errors
    with_text, without, pupil = outputs
    wanted = torch.cat((without + 3 * (with_text - without), with_text), dim=1)[:, [0, 1, 2, 9, 10, 11]]
    torch.testing.assert_close(errors, (pupil - wanted).square().mean((1, 2, 3)))


def test_an_adapter_learns_it() -> None:
    """Half of what guidance adds in a few steps: the network and its adapter are there to do it."""
    settings = DistillationSettings(prediction_type="sample", distilled_guidance=3.0, text_dropout=0.0)
    unet = make_base()
    add_lora(unet, rank=8)
    optimizer = torch.optim.Adam([p for p in unet.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = loss_of(unet, settings).losses.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.5 * losses[0]


def test_what_cannot_be_distilled_is_refused() -> None:
    unet = make_base()
    with pytest.raises(ValueError, match="distilled into an adapter.*give rank"):
        begin_distillation(adapt(unet), 2.0)
    begin_distillation(adapt(unet), None)
    with pytest.raises(ValueError, match="takes no text, so it has no guidance"):
        begin_distillation(adapt(make_sr(encoder_hid_dim=None, attention_kind="self")), 2.0)
    for scale in (1.0, 0.5, float("nan")):
        with pytest.raises(ValueError, match="distilled_guidance is .* above 1"):
            DistillationSettings(distilled_guidance=scale)


def test_which_guidance_is_distilled(shared_pipe) -> None:
    """That of the cascade is 3, 2 and none."""

    def scales(given: list[float] | None, stages: list[int] | None) -> dict[int, float]:
        return scales_to_distill(shared_pipe, GuidanceSettings(given), stages)

    assert scales(None, None) == {1: 3.0, 2: 2.0}
    assert scales(None, [2]) == {2: 2.0}
    assert scales([5.0], None) == {1: 5.0, 2: 5.0, 3: 5.0}
    assert scales([5.0, 4.0], [1, 3]) == {1: 5.0, 3: 4.0}
    for given, stages in ((None, [2, 3]), ([1.0], None), ([2.0, 0.5], [1, 2])):
        with pytest.raises(ValueError, match="no guidance to distill: leave the stage out"):
            scales(given, stages)
    with pytest.raises(ValueError, match="2 values for 3 stages"):
        scales([2.0, 3.0], None)
    for stages in ([4], [1, 0], [-1]):
        with pytest.raises(ValueError, match=r"is not there; this cascade holds the stages \[1, 2, 3\]"):
            scales(None, stages)


def test_stages_without_text_are_left_out_before_any_is_trained() -> None:
    plain = make_sr(encoder_hid_dim=None, attention_kind="self")
    pipe = make_pipeline(unet_2=plain)
    assert scales_to_distill(pipe, GuidanceSettings([5.0, 4.0, 3.0]), None) == {1: 5.0, 3: 3.0}
    with pytest.raises(ValueError, match="stage 2 takes no text, so it has no guidance to distill: leave it out of --stages"):
        scales_to_distill(pipe, GuidanceSettings(), [1, 2])


def test_what_has_learned_is_sampled_without_guidance(pipe) -> None:
    sample_without_guidance(pipe, 1)
    assert list(pipe.config["guidance_scale"]) == [1.0, 2.0, 1.0]
    pipe.register_to_config(guidance_scale=[3.0])  # which calls that name another do with
    sample_without_guidance(pipe, 2)
    assert list(pipe.config["guidance_scale"]) == [3.0, 1.0]


def test_ways_that_are_measured_after_the_adapters_have_the_weights_of_those_before(pipe, tmp_path, monkeypatch) -> None:
    adapter_of("unet", tmp_path)
    pipe.to(torch.bfloat16)
    monkeypatch.setattr(guidance, "draw", lambda *_: torch.zeros(1))
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    for way in (None, tmp_path, None):
        guidance.generated(pipe, ["a red cube"], way, 1.0)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_guidance_that_is_added_to_a_learned_one_is_told_of(tmp_path, caplog) -> None:
    """By whoever loads the file, in which diffusers' own readers find nothing new."""
    taught, pipe = make_pipeline(), make_pipeline()
    add_lora(taught.unet, rank=2)
    begin_distillation(adapt(taught.unet), 4.0)
    taught.save_lora_weights(tmp_path, unet_lora_layers=lora_layers(taught.unet), unet_lora_adapter_metadata=lora_metadata(taught.unet))
    other = make_pipeline().unet
    add_lora(other, rank=2)
    pipe.save_lora_weights(tmp_path / "other", lora_layers(other), unet_lora_adapter_metadata=lora_metadata(other))
    state: Any = pipe.lora_state_dict(tmp_path, return_lora_metadata=True)
    assert state[1].items() >= {("guidance_scale.unet", 4.0), ("unet.r", 2)}
    assert moved_to_stage(*state, 2)[1].items() >= {("guidance_scale.unet_2", 4.0), ("unet_2.r", 2)}  # pyright: ignore

    def told(of=None, **call) -> list[str]:
        caplog.clear()
        (of or pipe)(**{"prompt": "a red cube", "num_inference_steps": 1} | call)
        return [record.getMessage().split(";")[0] for record in caplog.records if "guidance" in record.getMessage()]

    pipe.load_lora_weights(tmp_path, adapter_name="mine")
    assert told(guidance_scale=1) == []
    assert learned_guidance(pipe.unet) == {"mine": 4.0}
    for scale in (3, 2):
        assert told(guidance_scale=scale) == [f"mine has learned guidance of 4, and in unet guidance of {scale} is added to it"]
        assert told(guidance_scale=scale) == []  # once is enough
    assert (
        told(of=ImagenCascadeImg2ImgPipeline.from_pipe(pipe), prompt=None, image=torch.rand(1, 3, 16, 16)) == []
    )  # nor guided, without text
    pipe.disable_lora()
    assert told(guidance_scale=5) == []
    pipe.set_adapters("mine", 0.0)
    assert told(guidance_scale=5) == []
    pipe.set_adapters("mine", 1.0)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert len(told(guidance_scale=5)) == 1
    pipe = make_pipeline()
    pipe.load_lora_weights(tmp_path)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path / "other")
    assert len(told()) == 1  # of the fused one, whose name the other does not take
    pipe = make_pipeline()
    pipe.load_lora_weights(tmp_path)
    pipe.unload_lora_weights()
    assert told() == []


@pytest.mark.thorough
def test_the_script(cascade, images, tmp_path, monkeypatch) -> None:  # noqa: F811
    """Of the guided stages one file of adapters; the images after it are generated without guidance."""
    scales = []
    monkeypatch.setattr(
        "imagen_diffusers.finetuning.cascade.generate_examples",
        lambda pipe, *_, **__: scales.append(list(pipe.config["guidance_scale"])) or [],
    )
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.before_and_after", lambda *_: None)
    given = ["--train_data_dir", images, "--rank", 2, "--validation_prompts", "a red cube"]
    for steps in (1, 2):
        distill_guidance.main(flags(cascade, steps, tmp_path, *given))
    assert scales == [[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]] * 2
    with pytest.raises(ValueError, match="checkpoint-2 is a checkpoint of another run: guidance_scale=3.0 there and 5.0 here"):
        distill_guidance.main(flags(cascade, 2, tmp_path, *given, "--guidance_scale", 5))
    assert {name.split(".")[0] for name in load_file(tmp_path / "pytorch_lora_weights.safetensors")} == {"unet", "unet_2"}
    assert "| `guidance_scale` | 3.0, 2.0 |" in (tmp_path / "README.md").read_text()
    assert list(run_usage(tmp_path)["pipe"].config["guidance_scale"]) == [1.0, 1.0, 1.0]
    pipe = ImagenCascadePipeline.from_pretrained(cascade)
    pipe.load_lora_weights(tmp_path)
    assert learned_guidance(pipe.unet_2) == {"default_0": 2.0}
    assert "guidance_scale.unet" in pipe.lora_state_dict(tmp_path / "stage-1" / "checkpoint-1", return_lora_metadata=True)[1]
    assert pipe("a red cube", guidance_scale=1, output_type="pt", generator=seeded()).images.shape == (1, 3, 64, 64)
