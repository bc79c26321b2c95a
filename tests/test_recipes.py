"""Where the parts of a fine-tuning are, and what they start from."""

import pytest
import torch
from accelerate import PartialState

from examples import finetune_domain, finetune_style
from imagen_diffusers.finetuning.flags import ModelSettings
from imagen_diffusers.finetuning.one_stage import load_cascade
from imagen_diffusers.models.lora import add_lora, lora_layers

from .conftest import make_base
from .test_examples import cascade, flags, pictures  # noqa: F401 (fixtures)


def devices(pipe) -> set[str]:
    return {m.device.type for m in pipe.components.values() if isinstance(m, torch.nn.Module)}


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_cascade_is_loaded_to_the_device_of_the_process(cascade, monkeypatch, from_scratch) -> None:  # noqa: F811
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    pipe = load_cascade(ModelSettings(pretrained_model_name_or_path=cascade, from_scratch=from_scratch))
    assert devices(pipe) == {"meta"}


def test_images_before_and_after_are_generated_on_one_device(cascade, pictures, tmp_path, monkeypatch) -> None:  # noqa: F811
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    seen = []
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.draw_examples", lambda pipe, *_, **__: seen.append(devices(pipe)) or [])
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.before_and_after", lambda *_: None)
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.fit_stages", lambda pipe, *_: pipe.unet.to("meta"))  # as accelerate does
    finetune_domain.main(flags(cascade, 1, tmp_path, "--train_data_dir", pictures, "--stages", 1, "--validation_prompts", "a red cube"))
    assert seen == [{"meta"}, {"meta"}]


@pytest.mark.gpu
def test_one_stage_is_fine_tuned_on_a_gpu(cascade, pictures, tmp_path) -> None:  # noqa: F811
    more = ["--train_data_dir", pictures, "--stages", 1, "--rank", 2, "--validation_prompts", "a red cube"]
    finetune_style.main(flags(cascade, 2, tmp_path, *more))
    assert (tmp_path / "before_and_after.png").exists()


def test_first_weights_depend_on_the_seed_alone(cascade) -> None:  # noqa: F811
    def adapter(seed: int) -> list[torch.Tensor]:
        unet = make_base()
        torch.rand(3)
        add_lora(unet, rank=2, seed=seed)
        return list(lora_layers(unet).values())

    def fresh(seed: int) -> list[torch.Tensor]:
        torch.rand(3)
        model = ModelSettings(pretrained_model_name_or_path=cascade, from_scratch=True)
        return [p for p in load_cascade(model, seed=seed).unet_2.parameters() if p.ndim > 1]

    for make in (adapter, fresh):
        one, two = make(1), make(1)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(one, make(2), strict=True))


def test_new_layers_leave_the_global_state_as_it_was(cascade) -> None:  # noqa: F811
    unet = make_base()
    before = torch.get_rng_state()
    add_lora(unet, rank=2)
    assert torch.equal(torch.get_rng_state(), before)
