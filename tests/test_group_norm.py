"""Group norm that reorders images: what torch's own gives, to rounding, in the format that came."""

import pytest
import torch
from torch import nn

from imagen_diffusers.models import group_norm
from imagen_diffusers.models.group_norm import GroupNorm

from .conftest import seeded

LAST = torch.channels_last


def image(side: int, dtype: torch.dtype, memory_format: torch.memory_format = LAST) -> torch.Tensor:
    return (3 * torch.randn(2, 16, side, side, generator=seeded()) + 1).to(dtype).contiguous(memory_format=memory_format)


def normed(norm: nn.GroupNorm, x: torch.Tensor) -> list[torch.Tensor]:
    """The norm of an image, and the gradients of it and of the weights."""
    x, norm.weight.grad, norm.bias.grad = x.clone().requires_grad_(), None, None
    out = norm(x)
    out.backward(torch.randn(out.shape, generator=seeded(1)).bfloat16().to(out.dtype))
    return [out, *(t.grad for t in (x, norm.weight, norm.bias) if t.grad is not None)]


@pytest.fixture
def norms() -> tuple[GroupNorm, nn.GroupNorm]:
    own, stock = GroupNorm(4, 16), nn.GroupNorm(4, 16)
    with torch.no_grad():
        own.weight.copy_(torch.rand(16, generator=seeded(2)) + 0.5)
        own.bias.copy_(torch.randn(16, generator=seeded(3)))
    stock.load_state_dict(own.state_dict())
    return own, stock


@pytest.mark.parametrize("side", [4, 40])
def test_bfloat16_is_as_exact_as_torch_has_it(norms, side) -> None:
    """Each to within the rounding of bfloat16 of the norm in float64: 2^-8 of a value; of sums of a gradient, of the largest one."""
    own, stock = norms
    x, exact = image(side, torch.bfloat16), nn.GroupNorm(4, 16).double()
    exact.load_state_dict(stock.state_dict())
    for found, true in zip(normed(own, x), normed(exact, x.double()), strict=True):
        assert (found - true).abs().max() <= 2**-8 * true.abs().max()
    assert normed(own, x)[0].is_contiguous(memory_format=LAST) and normed(own, x)[1].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(
    ("x", "gradient"),
    [(image(4, torch.float32), True), (image(4, torch.bfloat16, torch.contiguous_format), True), (image(32, torch.bfloat16), False)],
    ids=["float32", "other format", "large, without gradient"],
)
def test_where_torch_is_quick_its_bits_stay(norms, x, gradient) -> None:
    own, stock = norms
    with torch.set_grad_enabled(gradient):
        assert not group_norm._slow(x.requires_grad_(gradient)) and torch.equal(own(x), stock(x))


def test_weights_behind_frozen_layers_get_the_gradient_that_images_in_the_other_format_give(norms) -> None:
    own, stock = norms
    for norm, memory_format in ((own, LAST), (stock, torch.contiguous_format)):  # torch's own ends the program in LAST
        norm(image(4, torch.float32, memory_format)).square().sum().backward()
    assert torch.equal(own.weight.grad, stock.weight.grad) and torch.equal(own.bias.grad, stock.bias.grad)
    assert own(image(4, torch.float32)).is_contiguous(memory_format=LAST)


def test_it_is_found_as_a_group_norm(norms) -> None:
    """By what looks for norms: quantization, decay of weights, adapters."""
    assert isinstance(norms[0], nn.GroupNorm) and group_norm._slow(image(4, torch.bfloat16))
    assert group_norm._slow(image(32, torch.bfloat16).requires_grad_())
