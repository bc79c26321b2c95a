"""Which examples make up which step."""

import pytest

from imagen_diffusers.training.order import BucketSampler, Share, StepSampler


def indices(batches) -> list[list[int]]:
    return [[index for index, _ in batch] for batch in batches]


def test_a_sampler_is_a_function_of_seed_and_step() -> None:
    whole = list(StepSampler(10, Share(3), seed=1, start=0, stop=10))
    assert whole[4:] == list(StepSampler(10, Share(3), seed=1, start=4, stop=10))
    assert sorted(sum(indices(whole), [])) == sorted(list(range(10)) * 3)
    assert whole != list(StepSampler(10, Share(3), seed=2, start=0, stop=10))
    assert [number for batch in whole for _, number in batch] == [0] * 10 + [1] * 10 + [2] * 10


@pytest.mark.parametrize("bucketed", [False, True])
def test_processes_and_accumulated_batches_share_what_one_batch_would_hold(bucketed) -> None:
    def make(share: Share):
        given = {"seed": 1, "start": 2, "stop": 6}
        return BucketSampler([i % 2 for i in range(20)], share, **given) if bucketed else StepSampler(20, share, **given)

    whole = list(make(Share(8)))
    shares = [list(make(Share(2, processes=2, rank=rank, accumulation=2))) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        parts = [shares[rank][2 * step + micro] for micro in (0, 1) for rank in (0, 1)]
        assert batch == sum(parts, [])


def test_a_step_holds_one_shape_and_a_pass_holds_every_image() -> None:
    buckets = [0] * 5 + [1] * 9 + [2] * 2
    sampler = BucketSampler(buckets, Share(4), seed=0, start=0, stop=6)
    assert sampler.steps_per_pass == 2 + 3 + 1
    steps = indices(sampler)
    assert all(len({buckets[i] for i in step}) == 1 for step in steps)
    assert set(sum(steps, [])) == set(range(16))
    again = BucketSampler(buckets, Share(4), seed=0, start=3, stop=6)
    assert indices(again) == steps[3:]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StepSampler(0, Share(3), seed=1, start=0, stop=1)
    with pytest.raises(ValueError, match="empty"):
        BucketSampler([], Share(3), seed=1, start=0, stop=1)
