"""imagen-pytorch's checkpoints as components of a cascade.

Files of releases 1.22 to 2.1 are read: `ImagenTrainer.save` (its folder checkpoints are such files), `torch.save` of an
`Imagen.state_dict()`, and `Unet.persist_to_file`. They are pickles and are read with `weights_only=True`, which runs nothing.
"""

import pickle
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.schedulers.scheduling_imagen_edm_dpmsolver_multistep import ImagenEDMDPMSolverMultistepScheduler

from .architecture import UNTOLD, infer
from .scheduling_lucidrains import LucidrainsScheduler
from .settings import MOST_NETWORKS, OBJECTIVES, check_count, check_given, check_values
from .unet_lucidrains import EDM, LucidrainsUNet2DConditionModel

PLACEHOLDER = {"dummy_parameter"}  # all that a `NullUnet` holds, which stands for a network that is not trained
ORIGINAL, ELUCIDATED = "original", "elucidated"  # that package's words for `Imagen` and `ElucidatedImagen`
# What weights do not tell of a cascade and no default should guess.
ASKED = {ORIGINAL: ("image_sizes", "noise_schedules", "pred_objectives"), ELUCIDATED: ("image_sizes",)}
DEFAULTS_OF = {
    ORIGINAL: {"timesteps": 1000},
    ELUCIDATED: {"num_sample_steps": 32, "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0},
}
DEFAULTS = {
    "lowres_noise_schedule": "linear",
    "lowres_sample_noise_level": 0.2,
    "dynamic_thresholding": True,
    "dynamic_thresholding_percentile": 0.95,
    "resize_mode": "nearest",
}


@dataclass
class Found:
    """What a file holds: the networks' weights, and the settings saved with them; `report` says what was found.

    `kind` is the cascade's, where the file tells.
    """

    states: list[dict[str, Tensor]]
    kind: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    unet_settings: list[dict[str, Any]] = field(default_factory=list)
    report: list[str] = field(default_factory=list)


def read(path: Path, *, ema: bool = True) -> Found:
    """Read a file; of one with averaged weights those, unless `ema` is False.

    Raises:
        ValueError: for a file that is damaged, holds more than weights and settings, or no imagen-pytorch network.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is no file; give a checkpoint of imagen-pytorch") from None
    except Exception as error:  # of any kind: what is no pickle is read as one
        if isinstance(error, pickle.UnpicklingError) and _begins_as_saved(path):
            what = str(error).split("WeightsUnpickler error: ")[-1].split(". ")[0].strip()
            raise ValueError(
                f"{path} holds more than weights and settings, which would have to be run to be read, and is not: {what}"
            ) from None
        known = isinstance(error, RuntimeError) and str(error)  # torch's own words; others tell of its inside
        what = f": {str(error).splitlines()[0]}" if known else ""
        raise ValueError(f"{path} is no file of torch.save, or is damaged or cut short{what}") from None
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds a {type(held).__name__}; a checkpoint of imagen-pytorch is a dictionary")
    if {"config", "state_dict"} <= set(held):
        config = dict(held["config"])
        return Found([held["state_dict"]], unet_settings=[config], report=[f"{path}: one network, saved with its configuration"])
    settings = dict(held.get("imagen_params") or {})
    unet_settings = list(settings.pop("unets", []))
    if ema and "ema" in held:
        states, what = _split(held["ema"], "{}.ema_model."), "averaged weights"
    else:
        states, what = _split(held.get("model", held), "unets.{}."), "raw weights"
    if all(state.keys() == PLACEHOLDER for state in states):
        raise ValueError(f"{path} holds no imagen-pytorch network; its entries begin with {', '.join(list(held)[:3])}")
    said = "with the configuration they were built from" if settings else "without a configuration"
    return Found(states, held.get("imagen_type"), settings, unet_settings, [f"{path}: {what} of {len(states)} networks, {said}"])


def _begins_as_saved(path: Path) -> bool:
    """Whether a file's first bytes are those of a ZIP archive, as `torch.save` writes it, or of a pickle, as it did before."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6)))


def load_components(
    path: str | Path, *, ema: bool = True, settings: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[str], list[str]]:
    """A file as the networks, schedulers and settings of a cascade by name, what was found, line by line, and what was assumed.

    The place of a `NullUnet` stays empty. A super-resolution network alone is the second stage.

    Args:
        path: the file, or a trainer's checkpoint folder, of which the newest is read.
        ema: take averaged weights where there are some.
        settings: arguments of imagen-pytorch's `Imagen` by name, for what the file does not say; `unets` may hold arguments of
            each `Unet`, and `imagen_type` be "elucidated" for a cascade of `ElucidatedImagen`. They go before what the file says.

    Raises:
        ValueError: for settings that are nowhere, that nobody knows or that cannot be converted, named, for weights that are missing or
            left over, listed, and for more stages than a cascade has, or in another order.
    """
    path = _newest(Path(path)) if Path(path).is_dir() else Path(path)
    found = read(path, ema=ema)
    count = len(found.states)
    check_count(count)
    check_given(settings or {}, count)
    kind, known, assumed = _known(path, found, settings or {})
    check_values(known)
    stages = {name: _per_stage(name, known[name], count) for name in (*ASKED[kind], *DEFAULTS_OF[kind], "dynamic_thresholding")}
    if any(small >= large for small, large in pairwise(stages["image_sizes"])):
        raise ValueError(f"image_sizes are {stages['image_sizes']}; each stage's images are larger than those of the one before")
    parts: dict[str, Any] = {}
    report, guesses = found.report, [f"assumed {name}={value}" for name, value in assumed.items()]
    steps = [1] * MOST_NETWORKS
    for n, state in enumerate(found.states):
        if state.keys() == PLACEHOLDER:
            report.append(f"network {n + 1}: a NullUnet, whose place stays empty")
            continue
        of_stage = {name: values[n] for name, values in stages.items()}
        unet, notes = build(state, _unet_settings(n, found, settings or {}, known, of_stage), f"network {n + 1}")
        slot = _slot(n, unet.has_low_res, alone=count == 1)
        suffix = "" if slot == 0 else f"_{slot + 1}"
        parts["unet" + suffix] = unet
        parts["scheduler" + suffix] = _scheduler(of_stage, ratio=known["dynamic_thresholding_percentile"])
        steps[slot] = of_stage["timesteps" if kind == ORIGINAL else "num_sample_steps"]
        guesses += notes
        report += [f"network {n + 1}: {unet.num_parameters() / 1e6:.1f} M parameters at {of_stage['image_sizes']}px"]
    return {**parts, **_calls(steps, 1000 * known["lowres_sample_noise_level"])}, report, guesses


def _newest(folder: Path) -> Path:
    """The checkpoint of most steps, by the names that that package's trainer gives them.

    Raises:
        ValueError: for a folder without such names.
    """
    steps = {int(found[1]): path for path in folder.iterdir() if (found := re.fullmatch(r"checkpoint\.(\d+)\.pt", path.name))}
    if not steps:
        there = ", ".join(sorted(path.name for path in folder.glob("*.pt"))) or "none that ends in .pt"
        raise ValueError(f"{folder} is a folder without checkpoint.<steps>.pt of a trainer; give one of its files: {there}")
    return steps[max(steps)]


def _known(path: Path, found: Found, settings: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The kind of cascade, every setting of it, and those that neither the file nor the caller says.

    Raises:
        ValueError: for an unknown kind, and for settings that nobody says and no default should guess.
    """
    given = {name: value for name, value in settings.items() if name not in ("unets", "imagen_type")}
    kind = settings.get("imagen_type", found.kind or ORIGINAL)
    if kind not in ASKED:
        raise ValueError(f'imagen_type="{kind}" is unknown; it is one of {", ".join(ASKED)}')
    defaults = {**({} if found.kind or "imagen_type" in settings else {"imagen_type": kind}), **DEFAULTS_OF[kind], **DEFAULTS}
    known = {**defaults, **found.settings, **given}
    missing = [name for name in ASKED[kind] if name not in known]
    if missing:
        raise ValueError(
            f"{path} does not say {', '.join(missing)}; give what Imagen had, one value per stage ({len(found.states)}), in settings"
        )
    return kind, known, {k: v for k, v in defaults.items() if k not in found.settings and k not in given}


def _unet_settings(n: int, found: Found, settings: dict[str, Any], known: dict[str, Any], of_stage: dict[str, Any]) -> dict[str, Any]:
    """What is said of the `n`-th network besides its weights; the caller goes before the file, and the cascade before both."""
    given = settings.get("unets", [])
    return {
        **(found.unet_settings[n] if found.unet_settings else {}),
        **(given[n] if given else {}),
        "sample_size": of_stage["image_sizes"],
        "noise_schedule": of_stage.get("noise_schedules", EDM),
        "low_res_noise_schedule": known["lowres_noise_schedule"],
        "low_res_resize_mode": known["resize_mode"],
    }


def _calls(steps: list[int], level: float) -> dict[str, Any]:
    """What a cascade's calls are by default: `steps` of each stage, conditions noised to `level`."""
    return {
        "null_text": "learned",
        "max_sequence_length": 256,
        "num_inference_steps": steps,
        "guidance_scale": (1.0, 1.0, 1.0),
        "noise_level": (0.0, level, level),
    }


def _slot(n: int, low_res: bool, *, alone: bool) -> int:
    """Which stage's the `n`-th network is, both counted from 0.

    Raises:
        ValueError: for a network that does not come where its kind does.
    """
    slot = 1 if alone and low_res else n
    if low_res != (slot > 0):
        what, place = ("a super-resolution network", "first") if n == 0 else ("a base", "after another")
        raise ValueError(f"network {n + 1} is {what} and comes {place}; a cascade is one base and then super-resolution networks")
    return slot


def _scheduler(said: dict[str, Any], ratio: float) -> LucidrainsScheduler | ImagenEDMDPMSolverMultistepScheduler:
    """One stage's, by its settings."""
    if "sigma_data" in said:
        sigmas: dict[str, Any] = {name: float(said[name]) for name in ("sigma_min", "sigma_max", "sigma_data", "rho")}
        # Where that package does not threshold it clips, which is thresholding with a cap of 1.
        return ImagenEDMDPMSolverMultistepScheduler(
            **sigmas,
            thresholding=True,
            dynamic_thresholding_ratio=ratio,
            sample_max_value=None if said["dynamic_thresholding"] else 1.0,  # pyright: ignore[reportArgumentType]
        )
    return LucidrainsScheduler(
        said["noise_schedules"],
        prediction_type=OBJECTIVES[said["pred_objectives"]],
        thresholding=said["dynamic_thresholding"],
        dynamic_thresholding_ratio=ratio,
    )


def build(state: dict[str, Tensor], said: dict[str, Any], name: str) -> tuple[LucidrainsUNet2DConditionModel, list[str]]:
    """A network with these weights, built as they tell and, for what they do not tell, as is said; and what was assumed.

    Raises:
        ValueError: for weights that are missing or left over, listed.
    """
    config = infer(state)
    notes = [f"{name}: assumed {k}={v}" for k, v in UNTOLD.items() if k not in said]
    config |= {k: said.get(k, v) for k, v in UNTOLD.items()}
    if config["self_cond"]:
        config["cond_images_channels"] -= config["channels"]
    if config["resnet_groups"] is not None:
        notes += [] if "resnet_groups" in said else [f"{name}: assumed resnet_groups={config['resnet_groups']}"]
        config["resnet_groups"] = said.get("resnet_groups", config["resnet_groups"])
    config |= {k: said[k] for k in ("sample_size", "noise_schedule", "low_res_noise_schedule", "low_res_resize_mode") if k in said}
    unet = LucidrainsUNet2DConditionModel(**config)
    weights = {key.replace(".groupnorm.", ".norm."): value for key, value in state.items()}
    own = {key: value.shape for key, value in unet.state_dict().items()}
    wrong = [f"{k} is missing" for k in own if k not in weights] + [f"{k} is left over" for k in weights if k not in own]
    wrong += [f"{k} is {tuple(weights[k].shape)}, not {tuple(own[k])}" for k in own if k in weights and weights[k].shape != own[k]]
    if wrong:
        raise ValueError(f"{name} does not fit: {'; '.join(wrong[:10])}{f'; and {len(wrong) - 10} more' if len(wrong) > 10 else ''}")
    unet.load_state_dict(weights)
    return unet.eval(), notes


def _split(weights: dict[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    """Weights of all networks to those of each."""
    states = []
    while any(name.startswith(prefix.format(len(states))) for name in weights):
        start = prefix.format(len(states))
        states.append({name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)})
    return states


def _per_stage(name: str, value: Any, count: int) -> list[Any]:
    """One value per stage, as imagen-pytorch pads them: schedules to cosine, cosine, linear, ..., others by repeating."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if name == "noise_schedules":
        values += ["cosine"] * (2 - len(values)) + ["linear"] * (count - max(len(values), 2))
        values = values[:count]
    elif not isinstance(value, list | tuple):
        values *= count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} networks; give one each")
    return values
