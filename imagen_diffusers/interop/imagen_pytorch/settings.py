"""The settings of imagen-pytorch's cascades by their names there: which there are, and which values can be converted.

Data and checks; nothing is read or built here.
"""

import inspect
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from .scheduling_lucidrains import CURVES
from .unet_lucidrains import LucidrainsUNet2DConditionModel

OBJECTIVES = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}
MOST_NETWORKS = 3
# Of `Imagen` and `ElucidatedImagen` in releases 1.22 to 2.1; those of training and of what weights tell are named, and not read.
READ = (
    *("image_sizes", "noise_schedules", "pred_objectives", "timesteps", "lowres_noise_schedule", "lowres_sample_noise_level"),
    *("dynamic_thresholding", "dynamic_thresholding_percentile", "resize_mode"),
    *("num_sample_steps", "sigma_min", "sigma_max", "sigma_data", "rho"),
)
NOT_READ = (
    *("text_encoder_name", "text_embed_dim", "channels", "cond_drop_prob", "loss_type", "random_crop_sizes", "condition_on_text"),
    *("per_sample_random_aug_noise_level", "auto_normalize_img", "p2_loss_weight_gamma", "p2_loss_weight_k", "only_train_unet_number"),
    *("temporal_downsample_factor", "resize_cond_video_frames", "min_snr_loss_weight", "min_snr_gamma"),
    *("P_mean", "P_std", "S_churn", "S_tmin", "S_tmax", "S_noise"),
)
OF_THE_CALLER = ("unets", "imagen_type")
# Of our network of it alone: the cascade's settings say them.
OURS = ("sample_size", "noise_schedule", "low_res_noise_schedule", "low_res_resize_mode")
# Of `Unet`, beside those that our network of it has.
OF_A_UNET = (
    *("num_image_tokens", "out_dim", "layer_attns_add_text_cond", "cross_embed_downsample", "cross_embed_downsample_kernel_sizes"),
    "dropout",
)


def check_given(settings: Mapping[str, Any], networks: int) -> None:
    """See that what the caller says is said in that package's words, and of as many networks as there are.

    Raises:
        ValueError: for a name that it does not have, and for a count of `unets` that is not that of the networks.
    """
    _check_names("settings", settings, {*READ, *NOT_READ, *OF_THE_CALLER})
    unets = settings.get("unets", ())
    if unets and len(unets) != networks:
        raise ValueError(f"settings have {len(unets)} unets for {networks} networks; give the arguments of each, or leave unets out")
    own = {*inspect.signature(LucidrainsUNet2DConditionModel.__init__).parameters} - {"self", *OURS}
    for n, unet in enumerate(unets, start=1):
        _check_names(f"settings of unet {n}", unet, own | {*OF_A_UNET})


def check_count(networks: int) -> None:
    """See that a cascade has a place for each.

    Raises:
        ValueError: for more.
    """
    if networks > MOST_NETWORKS:
        raise ValueError(f"there are {networks} networks; a cascade has {MOST_NETWORKS} at most, a base and two that enlarge")


def check_values(known: Mapping[str, Any]) -> None:
    """See that what the file or the caller says can be converted.

    Raises:
        ValueError: for an objective, a noise curve or an augmentation level that is not there.
    """
    for objective in _each(known.get("pred_objectives", ())):
        if objective not in OBJECTIVES:
            raise ValueError(f'pred_objectives has "{objective}"; imagen-pytorch\'s are {", ".join(OBJECTIVES)}')
    for name in ("noise_schedules", "lowres_noise_schedule"):
        for curve in _each(known.get(name, ())):
            if curve not in CURVES:
                raise ValueError(f'{name} has "{curve}"; imagen-pytorch\'s are {", ".join(CURVES)}')
    level = known["lowres_sample_noise_level"]
    if not isinstance(level, Real) or not 0 <= level < 1:  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"lowres_sample_noise_level is {level}; it must be a number of at least 0 and less than 1, as 0.2")


def _check_names(what: str, said: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(said) - known)
    if unknown:
        raise ValueError(
            f"{what} have {', '.join(unknown)}, which imagen-pytorch has not; correct it, or leave it out: {', '.join(sorted(known))}"
        )


def _each(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
