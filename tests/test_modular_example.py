"""The cascade as blocks of Modular Diffusers."""

import torch

from examples.modular_stages import Mirror, modular

from .conftest import make_pipeline, seeded

PROMPT = "a red cube"


def test_blocks_are_the_cascade(shared_pipe) -> None:
    """Stages have seeds of their own, so that running them apart changes nothing but the rounding of images on their way."""
    images = modular(shared_pipe)(prompt=PROMPT, seed=3, output="images")
    expected = shared_pipe(PROMPT, generator=seeded(3), output_type="pt").images
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


def test_a_block_stands_between_stages() -> None:
    seen = []

    class Watch(Mirror):
        def __call__(self, components, state):
            seen.append(state.get("images"))
            return super().__call__(components, state)

    pipe = make_pipeline()
    images = modular(pipe, ("mirror", Watch))(prompt=PROMPT, seed=3, output="images")
    base = pipe(PROMPT, generator=seeded(3), stop_at=1, output_type="pt").images
    assert torch.equal(seen[0], base)
    assert images.shape == (1, 3, 64, 64)
    assert not torch.equal(images, modular(pipe)(prompt=PROMPT, seed=3, output="images"))
