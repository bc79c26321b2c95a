"""Muon beside torch's own, and the split of a network between Muon and AdamW."""

import copy

import pytest
import torch
from torch import nn

from imagen_diffusers.training import muon
from imagen_diffusers.training.muon import MuonWithAdamW, orthogonalize
from imagen_diffusers.training.optimizers import make_optimizer, split_for_muon
from imagen_diffusers.training.run_settings import TrainSettings

from .conftest import make_base, make_sr, seeded


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    for i, p in enumerate(parameters):
        p.grad = torch.randn(p.shape, generator=seeded(100 * step + i))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_matrices_move_as_torchs_own_muon_moves_them(decay, monkeypatch) -> None:
    monkeypatch.setattr(muon, "fastest_dtype", lambda device: torch.bfloat16)  # in which torch's multiplies, on every processor
    ours = [nn.Parameter(torch.randn(shape, generator=seeded())) for shape in ((8, 24), (24, 8), (16, 16))]
    theirs = copy.deepcopy(ours)
    optimizer = MuonWithAdamW(ours, [], lr=1e-2, weight_decay=decay)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step()
        reference.step()
    for one, two in zip(ours, theirs, strict=True):
        # The same operations; torch adds the bfloat16 update to float32 weights without a step between.
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("together_at_most", [2**22, 200])
def test_matrices_of_one_shape_move_together_as_each_would_alone(together_at_most, monkeypatch) -> None:
    monkeypatch.setattr(muon, "TOGETHER", together_at_most)
    shapes = ((8, 24), (24, 8), (8, 24), (8, 6, 2, 2), (24, 8))
    together = [nn.Parameter(torch.randn(shape, generator=seeded(i))) for i, shape in enumerate(shapes)]
    alone = copy.deepcopy(together)
    optimizer, optimizers = MuonWithAdamW(together, [], weight_decay=0.1), [MuonWithAdamW([p], [], weight_decay=0.1) for p in alone]
    for step in range(3):
        gradients(together, step)
        gradients(alone, step)
        if step == 1:  # one without a gradient stays as it is
            together[2].grad = alone[2].grad = None
        optimizer.step()
        for one in optimizers:
            one.step()
    for one, two in zip(together, alone, strict=True):
        # Updates are 0.2 sqrt(24) x 1e-3 at most; products of several matrices are summed in another order, in bfloat16.
        torch.testing.assert_close(one, two, rtol=0, atol=2e-5)


def test_the_rest_moves_as_torchs_own_adamw_moves_it() -> None:
    ours = [nn.Parameter(torch.randn(shape, generator=seeded())) for shape in ((8,), (3, 4))]
    theirs = copy.deepcopy(ours)
    optimizer = MuonWithAdamW([], ours, adamw_lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    for step in range(4):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step()
        reference.step()
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_a_convolution_is_a_matrix_in_any_memory_layout() -> None:
    plain = nn.Parameter(torch.randn(8, 4, 3, 3, generator=seeded()))
    last = nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    flat = nn.Parameter(plain.detach().flatten(1).clone())
    gradients([plain], 0)
    last.grad, flat.grad = plain.grad.clone(memory_format=torch.channels_last), plain.grad.flatten(1).clone()
    for p in (plain, last, flat):
        MuonWithAdamW([p], [], lr=1e-2).step()
    assert torch.equal(plain, last)
    assert torch.equal(plain.flatten(1), flat)


def test_singular_values_come_near_one() -> None:
    matrix = torch.randn(20, 50, generator=seeded())
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.6 and values.max() < 1.3  # Jordan's coefficients swing between 0.68 and 1.13; bfloat16 adds to that
    assert not orthogonalize(torch.zeros(4, 6)).any()


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_processor_without_bfloat16_is_not_made_to_emulate_it(dtype, far, monkeypatch) -> None:
    """The iteration itself, on the singular values, in float64; bfloat16 has 8 bits, of which five iterations lose some."""
    monkeypatch.setattr(muon, "fastest_dtype", lambda device: dtype)
    matrix = torch.randn(20, 50, generator=seeded(), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    a, b, c = muon.NEWTON_SCHULZ
    for _ in range(muon.ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalize(matrix.float()).double(), u @ s.diag() @ v, rtol=0, atol=far)


@pytest.mark.parametrize("make", [make_base, make_sr])
def test_the_ends_of_a_network_take_adamw(make) -> None:
    unet = make(**({"noisy_skip": True, "detail_channels": 4} if make is make_base else {}))
    matrices, others = split_for_muon(unet)
    names = {id(p): name for name, p in unet.named_parameters()}
    assert len(matrices) + len(others) == len(names)
    assert all(p.ndim >= 2 for p in matrices)
    assert {names[id(p)].split(".")[0] for p in matrices} <= {"down_blocks", "mid_block", "up_blocks"}
    assert any("attention.to_q" in names[id(p)] for p in matrices)
    left = {names[id(p)].split(".")[0] for p in others if p.ndim >= 2}
    assert left == {"embedding", "stem", "head"} | ({"noisy_path", "detail"} if make is make_base else set())


def test_settings_reach_both_groups(tmp_path) -> None:
    settings = TrainSettings(tmp_path, 1, optimizer="muon", learning_rate=4e-4, muon_learning_rate=2e-3, adam_weight_decay=0.0)
    optimizer = make_optimizer(make_base(), settings, scale=2.0)
    assert [g["lr"] for g in optimizer.param_groups] == [4e-3, 8e-4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "sgd"}, "use adamw or muon"),
        ({"optimizer": "muon", "use_8bit_adam": True}, "goes with optimizer=adamw"),
        ({"muon_learning_rate": 0.0}, "muon_learning_rate is 0.0"),
    ],
)
def test_bad_settings_are_refused_in_words(tmp_path, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        TrainSettings(tmp_path, 1, **changes)


def test_a_vector_is_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        MuonWithAdamW([nn.Parameter(torch.zeros(3))], [])


@pytest.mark.parametrize("earlier", [False, True])
def test_a_checkpoint_goes_to_the_device_of_the_weights(earlier) -> None:
    """As torch's own fused AdamW has it; the meta device stands for a GPU."""

    def weights(device: str) -> list[nn.Parameter]:
        return [nn.Parameter(torch.ones(shape, device=device)) for shape in ((4, 4), (4,))]

    kept = weights("cpu")
    optimizer = MuonWithAdamW(kept[:1], kept[1:])
    gradients(kept, 0)
    optimizer.step()
    state = optimizer.state_dict()
    if earlier:
        del state["param_groups"][1]["fused"]
    matrix, vector = weights("meta")
    loaded = MuonWithAdamW([matrix], [vector])
    loaded.load_state_dict(state)
    assert {name: value.device.type for name, value in loaded.state[vector].items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), "meta"
    )
    assert set(loaded.state[vector]) == {"step", "exp_avg", "exp_avg_sq"}
