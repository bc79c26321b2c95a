"""One image through every task, as the example does it."""

import pytest

from examples.every_task import every_task

from .conftest import make_pipeline


@pytest.mark.thorough
def test_every_task_makes_an_image() -> None:
    images = every_task(make_pipeline(num_inference_steps=(4, 4, 4)))  # of which varying makes one in each stage
    whole = images.pop("generate")
    assert [image.size for image in images.values()] == [whole.size] * 3 + [(2 * whole.width, whole.height), whole.size]
    inside = (whole.width // 2, 0, 3 * whole.width // 2, whole.height)
    assert images["extend to twice the width"].crop(inside).tobytes() == whole.tobytes()
    assert all(image.tobytes() != whole.tobytes() for image in images.values())
