"""Places of a network's features that outshine all others: how far they do, the penalty on them, and what it is not for."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.training import droplets
from imagen_diffusers.training.droplets import Droplets
from imagen_diffusers.training.losses import LossSettings, stage_loss

from .conftest import TEXT_DIM, make_base, make_sr, seeded
from .test_losses import TABLE, draws_of
from .test_training import LOSS, fit


def penalty_of(unet, seen: Droplets) -> torch.Tensor:
    """Of two images of noise under a text, without dropout."""
    settings = LossSettings(prediction_type="sample")
    text = TextEmbedding(torch.randn(2, 5, TEXT_DIM, generator=seeded(1)), torch.ones(2, 5, dtype=torch.bool))
    images = torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    draws = draws_of(2, settings, shape=(3, 16, 16))
    seen.begin()
    stage_loss(adapt(unet), images, draws=draws, log_snr_table=TABLE, settings=settings, text=text)
    return seen.penalty()


def test_the_penalty_is_how_many_times_too_much_a_place_has() -> None:
    """A place of energy e among n - 1 of energy 1 has e n / (e + n - 1) times the mean; `OUTSHINES` times the mean is free."""
    norm = nn.Sequential(nn.GroupNorm(2, 4), nn.GroupNorm(1, 4, affine=False))
    x = torch.ones(3, 4, 16, 16)
    x[1:, 1::2] = -1.0  # the second norm gets values of both signs, too
    x[1, :, 3, 5] *= 20.0
    with Droplets(norm) as seen:
        norm(x)
        seen.begin()
        norm(x)
        seen.begin()
        assert torch.equal(norm[0](x), nn.GroupNorm(2, 4)(x))  # looking changes nothing
        times = 400 * 256 / (400 + 255) / droplets.OUTSHINES
        torch.testing.assert_close(seen.penalty(), torch.tensor([0.0, math.log(times), 0.0]))
        seen.begin()
    norm(x)
    assert not seen._found


def test_nothing_has_no_gradient_that_is_no_number() -> None:
    norm, x = nn.GroupNorm(1, 2), torch.zeros(1, 2, 4, 4, requires_grad=True)
    with Droplets(norm) as seen:
        seen.begin()
        norm(x)
        seen.penalty().sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))


def test_training_under_the_penalty_evens_features_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(droplets, "OUTSHINES", 1.0)  # so that all features outshine the mean somewhere
    plain, evened = (fit(tmp_path / str(weight), 10, loss=replace(LOSS, droplet_weight=weight)) for weight in (0.0, 0.1))
    assert not any(module._forward_pre_hooks for module in evened.modules())
    with Droplets(plain) as of_plain, Droplets(evened) as of_evened:
        before, after = penalty_of(plain.train(), of_plain), penalty_of(evened.train(), of_evened)
    assert (after < 0.9 * before).all() and before.min() > 1


def test_gradient_checkpointing_changes_no_penalty(monkeypatch) -> None:
    monkeypatch.setattr(droplets, "OUTSHINES", 1.0)
    gradients = []
    for checkpointing in (False, True):
        unet = make_base().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with Droplets(unet) as seen:
            penalty_of(unet, seen).sum().backward()  # which goes by the hooks again
            assert seen._found is None  # and keeps nothing of that
        gradients.append([p.grad for p in unet.parameters() if p.grad is not None])
    assert len(gradients[0]) > 10
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)  # sums in another order


def test_a_network_at_work_is_not_looked_at() -> None:
    unet = make_sr().eval()
    text = TextEmbedding(torch.randn(1, 5, TEXT_DIM), torch.ones(1, 5, dtype=torch.bool))
    network = adapt(unet)
    arguments = network.arguments(text, torch.randn(1, 3, 32, 32), torch.tensor([0.0]))
    with Droplets(unet) as seen:
        seen.begin()
        network.predict(torch.randn(1, 3, 32, 32), torch.tensor([500]), arguments)
    assert seen._found == []


def test_a_training_that_fails_leaves_no_hooks(tmp_path) -> None:
    def fails(unet) -> dict[str, float]:
        raise RuntimeError("no figure")

    unet = make_base()
    with pytest.raises(RuntimeError, match="no figure"):
        fit(tmp_path, 2, unet=unet, loss=replace(LOSS, droplet_weight=0.1), measure=fails, validation_steps=1)
    assert not any(module._forward_pre_hooks for module in unet.modules())


@pytest.mark.parametrize(
    ("name", "prompt", "stages"),
    [
        ("imagen-scenes", "a large red cube on a plain gray floor", 3),
        ("imagen-emoji", "a 3d emoji of a red apple on a black background", 2),
    ],
)
def test_the_bundled_networks_have_none(name, prompt, stages) -> None:
    """No place has 100 times the mean; the 256px stage of `imagen-emoji` had one of 370, and its mark in each image."""
    pipe = ImagenCascadePipeline.from_pretrained(bundled(name), variant="fp16", dtype=torch.float32)
    strongest: list[float] = []

    def look(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        energy = inputs[0].square().mean(1).flatten(1)
        strongest.append((energy.amax(1) / energy.mean(1)).max().item())

    for network in (pipe.unet, pipe.unet_2, pipe.unet_3)[:stages]:
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(look)
    pipe(prompt, stop_at=stages, num_inference_steps=(4, 2, 1)[:stages], guidance_scale=1.0, generator=seeded())
    assert len(strongest) > 100 and max(strongest) < 100


def test_what_it_is_not_for() -> None:
    with pytest.raises(ValueError, match="Linear has none; leave it at 0"):
        Droplets(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="leave one out"):
        Droplets(nn.GroupNorm(1, 2), compiled=True)
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight of a penalty, 0 for none"):
            LossSettings(droplet_weight=weight)
