"""imagen-pytorch's own files, written by the package itself, become cascades that say what it says."""

import inspect
import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.imagen_pytorch_package import load
from imagen_diffusers import ImagenCascadePipeline, ImagenCascadeUpscalePipeline, LucidrainsUNet2DConditionModel
from imagen_diffusers.cli import app
from imagen_diffusers.interop.imagen_pytorch.architecture import UNTOLD, infer
from imagen_diffusers.interop.imagen_pytorch.conversion import load_components
from imagen_diffusers.interop.imagen_pytorch.settings import NOT_READ, OF_A_UNET, READ

from .conftest import make_text_encoder, seeded
from .forking import result
from .test_imagen_pytorch import CASES, PLAIN, package, pair, their_network  # noqa: F401 (a fixture)

SETTINGS = {"image_sizes": (16, 32), "noise_schedules": ("cosine", "linear"), "pred_objectives": "noise"}


@pytest.mark.parametrize("case", CASES)
def test_weights_tell_their_architecture(package, case) -> None:  # noqa: F811
    if case == "learned variance":
        pytest.skip("Imagen sets channels_out to channels: no checkpoint holds another")
    theirs, ours = pair(package, **CASES[case])
    told = infer(theirs.state_dict())
    if CASES[case].get("self_cond"):
        told["cond_images_channels"] = 0  # the same shapes; only a configuration tells them apart
    for name, value in told.items():
        own = ours.config[name]
        levels = len(told["dim_mults"])
        own = (own,) * levels if isinstance(value, tuple) and not isinstance(own, tuple) else own
        own = {"cond_dim": ours.token_dim, "init_dim": PLAIN["dim"]}.get(name, own)
        if (name, case) in (("layer_cross_attns", "linear cross-attention"), ("use_linear_attn", "linear attention")):
            continue  # a level cross-attended linearly holds the same weights; where attention is full, no linear one is built
        if name not in ("layer_attns_depth", "ff_mult", "text_embed_dim", "attn_pool_num_latents"):
            assert tuple(own) == value if isinstance(value, tuple) else own == value, name
    assert set(told) | set(UNTOLD) <= set(ours.config) | {"sample_size"}


def trainer(package, **changes):  # noqa: F811
    theirs = [their_network(package, lowres_cond=n > 0, memory_efficient=n > 0) for n in (0, 1)]
    imagen = package.Imagen(theirs, image_sizes=(16, 32), timesteps=5, text_embed_dim=24, **changes)
    return package.ImagenTrainer(imagen, use_ema=True), imagen


def outputs(unet, low_res: bool) -> torch.Tensor:
    x, text = torch.randn(1, 3, 16, 16, generator=seeded(1)), torch.randn(1, 5, 24, generator=seeded(2))
    more = {"low_res": x.flip(-1), "low_res_log_snr": torch.tensor([0.5])} if low_res else {}
    with torch.no_grad():
        return unet(x, torch.tensor([1.0]), text, torch.ones(1, 5, dtype=torch.bool), **more).sample


def expected(unet, low_res: bool) -> torch.Tensor:
    x, text = torch.randn(1, 3, 16, 16, generator=seeded(1)), torch.randn(1, 5, 24, generator=seeded(2))
    more = {"lowres_cond_img": x.flip(-1), "lowres_noise_times": torch.tensor([0.5])} if low_res else {}
    with torch.no_grad():
        return unet.eval()(x, torch.tensor([1.0]), text_embeds=text, text_mask=torch.ones(1, 5, dtype=torch.bool), **more)


def convert(path: Path, **how) -> tuple[ImagenCascadePipeline, list[str]]:
    parts, found, assumed = load_components(path, **how)
    assert all("assumed" in line for line in assumed) and not any("assumed" in line for line in found)
    return ImagenCascadePipeline(**parts), [*found, *assumed]


@pytest.mark.parametrize("ema", [True, False])
def test_a_trainers_checkpoint(package, tmp_path, ema) -> None:  # noqa: F811
    made, imagen = trainer(package)
    with torch.no_grad():  # so that raw and averaged weights differ
        for unet in imagen.unets:
            unet.final_conv.bias.add_(0.5)
    made.save(str(tmp_path / "trainer.pt"))
    pipe, report = convert(tmp_path / "trainer.pt", ema=ema, settings=SETTINGS)
    assert ("averaged" if ema else "raw") in report[0]
    assert any("assumed lowres_sample_noise_level=0.2" in line for line in report)
    for n, unet in enumerate((pipe.unet, pipe.unet_2)):
        theirs = made.ema_unets[n].ema_model if ema else imagen.unets[n]
        wanted = expected(theirs, n > 0)
        assert (outputs(unet, n > 0) - wanted).norm() < 1e-5 * wanted.norm()
    pipe.save_pretrained(tmp_path / "pipe")
    again = ImagenCascadePipeline.from_pretrained(tmp_path / "pipe")
    assert torch.equal(outputs(again.unet_2, True), outputs(pipe.unet_2, True))


def test_a_plain_state_dict_and_a_persisted_network(package, tmp_path) -> None:  # noqa: F811
    _, imagen = trainer(package)
    torch.save(imagen.state_dict(), tmp_path / "imagen.pt")
    pipe, _ = convert(tmp_path / "imagen.pt", settings=SETTINGS)
    assert torch.equal(outputs(pipe.unet, False), outputs(convert(tmp_path / "imagen.pt", settings=SETTINGS)[0].unet, False))
    theirs, ours = pair(package, self_cond=True)
    theirs.persist_to_file(str(tmp_path / "unet.pt"))
    one = {"image_sizes": 16, "noise_schedules": "cosine", "pred_objectives": "v"}
    pipe, report = convert(tmp_path / "unet.pt", settings=one)
    assert "saved with its configuration" in report[0]
    assert pipe.unet.config["self_cond"]
    assert pipe.scheduler.config["prediction_type"] == "v_prediction"
    assert torch.equal(outputs(pipe.unet, False), outputs(ours, False))


def enlarged(pipe: ImagenCascadePipeline) -> torch.Tensor:
    given = {"prompt_embeds": torch.ones(1, 5, 24), "image": torch.rand(1, 3, 16, 16, generator=seeded(1))}
    return ImagenCascadeUpscalePipeline.from_pipe(pipe)(**given, scale=2, generator=seeded(2), output_type="pt").images


def test_super_resolution_networks_without_a_base(package, tmp_path) -> None:  # noqa: F811
    """Beside a `NullUnet`, of a trainer that trains the second network alone, and from a file of their own."""
    theirs = their_network(package, lowres_cond=True, memory_efficient=True)
    imagen = package.Imagen([package.NullUnet(), theirs], image_sizes=(16, 32), timesteps=2, text_embed_dim=24)
    package.ImagenTrainer(imagen, use_ema=True).save(str(tmp_path / "trainer.pt"))
    theirs.persist_to_file(str(tmp_path / "alone.pt"))
    both = {**SETTINGS, "timesteps": (3, 2)}
    one = {**SETTINGS, "image_sizes": 32, "noise_schedules": "linear", "timesteps": 2}
    beside, report = convert(tmp_path / "trainer.pt", settings=both)
    assert "network 1: a NullUnet, whose place stays empty" in report
    alone, _ = convert(tmp_path / "alone.pt", settings=one)
    for pipe in (beside, alone):
        assert pipe.stage_numbers == [2] and pipe.scheduler is None and pipe.config["num_inference_steps"] == [1, 2, 1]
    alone.save_pretrained(tmp_path / "pipe")
    assert torch.equal(enlarged(beside), enlarged(ImagenCascadePipeline.from_pretrained(tmp_path / "pipe")))
    torch.save({"unets.0.dummy_parameter": torch.zeros(1)}, tmp_path / "none.pt")
    with pytest.raises(ValueError, match="holds no imagen-pytorch network"):
        convert(tmp_path / "none.pt", settings=one)


def test_group_norms_of_earlier_releases_load(package, tmp_path) -> None:  # noqa: F811
    """Releases up to 1.26 name them otherwise and have a bias."""
    ours = type(pair(package)[1])(**PLAIN, resnet_groups=8)
    state = {k.replace(".norm.", ".groupnorm.") if ".block" in k else k: v for k, v in ours.state_dict().items()}
    torch.save({f"unets.0.{k}": v for k, v in state.items()}, tmp_path / "old.pt")
    pipe, _ = convert(tmp_path / "old.pt", settings={**SETTINGS, "image_sizes": (16,), "noise_schedules": ("cosine",)})
    assert pipe.unet.config["resnet_groups"] == 8
    assert torch.equal(outputs(pipe.unet, False), outputs(ours.eval(), False))


def test_group_norms_have_the_groups_of_their_level(package, tmp_path) -> None:  # noqa: F811
    """As release 1.26 has them: the first level's first and last, the last level's in the middle, and always 8 of joined maps."""
    changes = {"resnet_groups": (4, 8), "combine_upsample_fmaps": True, "memory_efficient": True}
    ours = LucidrainsUNet2DConditionModel(**{**PLAIN, **changes})
    of_blocks = re.compile(r"(block\d|fmap_convs\.\d)\.norm\.")
    torch.save({"unets.0." + of_blocks.sub(r"\1.groupnorm.", k): v for k, v in ours.state_dict().items()}, tmp_path / "old.pt")
    settings = {**SETTINGS, "image_sizes": (16,), "noise_schedules": ("cosine",)}
    parts, _, assumed = load_components(tmp_path / "old.pt", settings={**settings, "unets": [{"resnet_groups": (4, 8)}]})
    groups = {name: module.num_groups for name, module in parts["unet"].named_modules() if isinstance(module, torch.nn.GroupNorm)}
    for place, wanted in (
        ("init", 4),
        ("downs.0", 4),
        ("downs.1", 8),
        ("mid", 8),
        ("ups.0", 8),
        ("ups.1", 4),
        ("final", 4),
        ("upsample", 8),
    ):
        assert {count for name, count in groups.items() if name.startswith(place)} == {wanted}, place
    assert not any("resnet_groups" in line for line in assumed)
    assert "network 1: assumed resnet_groups=8" in load_components(tmp_path / "old.pt", settings=settings)[2]


def test_what_does_not_fit_is_named(package, tmp_path) -> None:  # noqa: F811
    _, imagen = trainer(package)
    state = imagen.state_dict()
    torch.save(state, tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="does not say image_sizes, noise_schedules, pred_objectives"):
        convert(tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="image_sizes has 3 values for 2 networks"):
        convert(tmp_path / "whole.pt", settings={**SETTINGS, "image_sizes": (16, 32, 64)})
    broken = {k: v for k, v in state.items() if k != "unets.0.mid_block1.block1.norm.gamma"} | {"unets.0.extra": torch.zeros(1)}
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"network 1 does not fit: mid_block1\.block1\.norm\.gamma is missing; extra is left over"):
        convert(tmp_path / "broken.pt", settings=SETTINGS)
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no imagen-pytorch network"):
        convert(tmp_path / "other.pt", settings=SETTINGS)
    with pytest.raises(ValueError, match=r"image_sizes are \[32, 16\]; each stage's images are larger"):
        convert(tmp_path / "whole.pt", settings={**SETTINGS, "image_sizes": (32, 16)})
    swapped = {f"unets.{1 - int(k[6])}{k[7:]}": v for k, v in state.items()}
    torch.save(swapped, tmp_path / "swapped.pt")
    with pytest.raises(ValueError, match="network 1 is a super-resolution network and comes first"):
        convert(tmp_path / "swapped.pt", settings=SETTINGS)
    torch.save({k: v for k, v in state.items() if not k.endswith("q_scale")}, tmp_path / "older.pt")
    with pytest.raises(ValueError, match=r"before 1\.22"):
        convert(tmp_path / "older.pt", settings=SETTINGS)


def small(**more) -> dict[str, torch.Tensor]:
    """Weights by their names there; from that package none is needed."""
    torch.manual_seed(0)
    unet = LucidrainsUNet2DConditionModel(**{**PLAIN, **more})
    return unet.state_dict()


def test_what_was_assumed_is_a_warning_wherever_the_file_lies(tmp_path, caplog) -> None:
    path = tmp_path / "assumed.pt"
    torch.save({f"unets.0.{name}": value for name, value in small().items()}, path)
    with caplog.at_level(logging.INFO, logger="imagen_diffusers"):
        ImagenCascadePipeline.from_imagen_pytorch(path, settings={**SETTINGS, "image_sizes": 16, "noise_schedules": "cosine"})
    said = {record.getMessage(): record.levelname for record in caplog.records if record.name == "imagen_diffusers.pipelines.folders"}
    assert said[f"{path}: raw weights of 1 networks, without a configuration"] == "INFO"
    assert said["assumed timesteps=1000"] == said["network 1: assumed self_cond=False"] == "WARNING"


def test_what_is_given_goes_before_what_is_found(tmp_path) -> None:
    """Of a trainer's folder, of which the checkpoint of most steps is read."""
    one = {**SETTINGS, "image_sizes": 16, "noise_schedules": "cosine"}
    (tmp_path / "other.pt").touch()
    with pytest.raises(ValueError, match=r"is a folder without checkpoint\.<steps>\.pt of a trainer; give one of its files: other\.pt"):
        ImagenCascadePipeline.from_imagen_pytorch(tmp_path, settings=one)
    for steps in (9, 10, 8):
        state = {f"unets.0.{name}": torch.full_like(value, steps) for name, value in small().items()}
        torch.save(state, tmp_path / f"checkpoint.{steps}.pt")
    encoder, given = make_text_encoder(), {"guidance_scale": (3.0, 3.0, 3.0), "num_inference_steps": (7, 1, 1)}
    pipe = ImagenCascadePipeline.from_imagen_pytorch(tmp_path, settings=one, dtype=torch.float16, text_encoder=encoder, **given)
    assert (pipe.unet.dtype, pipe.text_encoder.dtype) == (torch.float16, torch.float32)
    assert pipe.config["guidance_scale"] == [3.0, 3.0, 3.0] and pipe.config["num_inference_steps"] == [7, 1, 1]
    assert all((value == 10).all() for value in pipe.unet.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lowres_sample_noise_levl": 0.3},
            "settings have lowres_sample_noise_levl, which imagen-pytorch has not; correct it.*noise_level",
        ),
        ({"lowres_sample_noise_level": 1.0}, "lowres_sample_noise_level is 1.0; it must be a number of at least 0 and less than 1"),
        ({"lowres_sample_noise_level": "high"}, "lowres_sample_noise_level is high; it must be a number"),
        ({"pred_objectives": "eps"}, 'pred_objectives has "eps"; imagen-pytorch\'s are noise, x_start, v'),
        ({"noise_schedules": "wavy"}, 'noise_schedules has "wavy"; imagen-pytorch\'s are cosine, linear'),
        ({"lowres_noise_schedule": "wavy"}, 'lowres_noise_schedule has "wavy"'),
        ({"unets": [{"self_kond": True}]}, "settings of unet 1 have self_kond, which imagen-pytorch has not"),
        ({"unets": [{"sample_size": 16}]}, "settings of unet 1 have sample_size, which imagen-pytorch has not"),
        ({"unets": [{"noise_schedule": "linear"}]}, "settings of unet 1 have noise_schedule, which imagen-pytorch has not"),
        ({"unets": [{}, {}]}, "settings have 2 unets for 1 networks"),
    ],
)
def test_settings_that_cannot_be_converted_are_named(tmp_path, change, message) -> None:
    torch.save({f"unets.0.{name}": value for name, value in small().items()}, tmp_path / "one.pt")
    fine = {**SETTINGS, "image_sizes": 16, "noise_schedules": "cosine", "cond_drop_prob": 0.1, "loss_type": "l2", "unets": [{"dim": 8}]}
    assert convert(tmp_path / "one.pt", settings=fine)[0].stage_numbers == [1]
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "one.pt", settings={**fine, **change})


def test_more_networks_than_a_cascade_has_are_counted(tmp_path) -> None:
    torch.save({f"unets.{n}.{name}": value for n in range(4) for name, value in small().items()}, tmp_path / "four.pt")
    with pytest.raises(ValueError, match="there are 4 networks; a cascade has 3 at most"):
        convert(tmp_path / "four.pt", settings={**SETTINGS, "image_sizes": (16, 32, 64, 128)})


def test_names_of_settings_are_those_of_the_package(package) -> None:  # noqa: F811
    known = {*READ, *NOT_READ}
    for cls in (package.Imagen, package.ElucidatedImagen):
        assert {*inspect.signature(cls.__init__).parameters} - {"self", "unets"} <= known
    own = {*inspect.signature(LucidrainsUNet2DConditionModel.__init__).parameters, *OF_A_UNET}
    assert {*inspect.signature(package.Unet.__init__).parameters} <= own


class Spring:
    """What unpickling would run, if it ran anything."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_files_that_cannot_be_read_are_said(package, tmp_path) -> None:  # noqa: F811
    _, imagen = trainer(package)
    torch.save(imagen.state_dict(), tmp_path / "whole.pt")
    (tmp_path / "short.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    torch.save({"unets.0.weight": Spring()}, tmp_path / "code.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("a note")
    read_as = {"short": "damaged or cut short", "empty": "damaged or cut short", "text": "cut short$", "code": "holds more than weights"}
    for name, message in read_as.items():
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / f"{name}.pt", settings=SETTINGS)
    with pytest.raises(FileNotFoundError, match="you/cascade is no file; give a checkpoint of imagen-pytorch"):
        convert(Path("you/cascade"), settings=SETTINGS)


def write_by(release: Path, folder: Path) -> None:
    sys.path.insert(0, str(release))
    loaded = load()
    assert loaded.__file__.startswith(str(release))
    made, _ = trainer(loaded)
    made.save(str(folder / "trainer.pt"))
    torch.save([expected(made.ema_unets[n].ema_model, n > 0) for n in (0, 1)], folder / "expected.pt")


@pytest.mark.slow
def test_a_checkpoint_of_the_last_release_with_group_norm(tmp_path) -> None:
    """Release 1.26.3, beside the newest: it writes a trainer's checkpoint, and what its averaged networks say."""
    old = Path(sys.prefix) / "imagen-pytorch-1.26.3"
    if not old.exists():
        pytest.skip("release 1.26.3 is not there: make .venv/installed-reference")
    result(write_by, old, tmp_path)
    pipe, _ = convert(tmp_path / "trainer.pt", settings=SETTINGS)
    assert pipe.unet.config["resnet_groups"] == 8
    for n, (unet, wanted) in enumerate(zip((pipe.unet, pipe.unet_2), torch.load(tmp_path / "expected.pt"), strict=True)):
        assert (outputs(unet, n > 0) - wanted).norm() < 1e-5 * wanted.norm()


def test_a_pipeline_that_is_there_is_not_written_over(tmp_path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    found = CliRunner().invoke(app, ["convert", "deepfloyd", str(tmp_path), str(tmp_path)])
    assert found.exit_code == 1 and "holds a pipeline, which would be written over" in found.output.replace("\n", " ")
    assert (tmp_path / "model_index.json").read_text() == "{}"


def test_the_command_writes_a_pipeline_and_says_what_it_assumed(package, tmp_path) -> None:  # noqa: F811
    import json

    from typer.testing import CliRunner

    from imagen_diffusers.cli import app

    made, _ = trainer(package)
    made.save(str(tmp_path / "trainer.pt"))
    told = tmp_path / "settings.json"
    told.write_text(json.dumps(SETTINGS))
    plain = ["convert", "imagen-pytorch", str(tmp_path / "trainer.pt"), str(tmp_path / "pipe")]
    result = CliRunner().invoke(app, [*plain, "--settings", str(told)])
    assert result.exit_code == 0, result.output
    assert "averaged weights of 2 networks" in result.output
    assert "assumed timesteps=1000" in result.output
    assert ImagenCascadePipeline.from_pretrained(tmp_path / "pipe").stage_numbers == [1, 2]
    assert "does not say image_sizes" in CliRunner().invoke(app, [*plain[:3], str(tmp_path / "other")]).output
    assert "convert deepfloyd or imagen-pytorch" in CliRunner().invoke(app, ["convert", "other", "a", "b"]).output
