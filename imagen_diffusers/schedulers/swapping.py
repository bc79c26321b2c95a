"""What must survive `X.from_config(y.config)`: the noise curve, the prediction type and the thresholding.

Plain diffusers drops every value the other scheduler had left at its default, and so falls back to the new class's
defaults: another curve, without a word. The mixin keeps these values in both directions, and replaces the stock
thresholding (capped at 1.0 where nobody says otherwise, which is plain clipping) by the paper's. A keyword that asks for another
curve takes the place of the one that is kept.
"""

import inspect
import os
from collections.abc import Collection
from functools import cache
from typing import Any

import diffusers
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from .noise import BETA_SCHEDULES, beta_table, same_curve, shift_betas
from .thresholding import PAPER_RATIO, check_ratio, dynamic_threshold

KEPT = frozenset(
    {
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
        "noise_schedule",
        "prediction_type",
        "thresholding",
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "clip_sample",
        "clip_sample_range",
    }
)
# What a curve follows from where it is not `trained_betas`, which go before all of these; the last two are words of our own schedulers.
CURVE = frozenset({"beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "log_snr_shift", "noise_schedule"})
CHANGES = frozenset({"num_train_timesteps", "log_snr_shift"})  # which make of a schedule another curve, and are no schedule


class ImagenSchedulerMixin:
    """First base of every Imagen scheduler; put it before the stock class."""

    config: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None = None, *args: Any, **kwargs: Any):
        """As in diffusers.

        Raises:
            OSError: for a name that is no path and no Hub id, as those of bundled pipelines are.
        """
        place = pretrained_model_name_or_path
        if isinstance(place, str) and "/" not in place and os.sep not in place and not os.path.exists(place):
            raise OSError(
                f'"{place}" is no path here, and no Hub id, which has the form "user/name"; for what comes with the package give '
                f'imagen_diffusers.bundled("{place}") in its place'
            )
        return super().from_pretrained(place, *args, **kwargs)  # type: ignore[misc]

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        """As in diffusers, which looks for every class among its own, this one, too."""
        return list({cls, *super()._get_compatibles()})  # type: ignore[misc]

    def _keep_on_swap(self) -> None:
        """Call at the end of every `__init__`: a stock class that is swapped in must take these values, its own defaults or not."""
        defaults = {name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()}
        listed = set(self.config.get("_use_default_values") or []) - KEPT
        # diffusers lists every argument that was given by its position, too.
        self.register_to_config(_use_default_values=sorted(k for k in listed if self.config[k] == defaults[k]))  # type: ignore[attr-defined]

    def _check_config(self) -> None:
        """Call at the start of every `__init__`.

        Raises:
            ValueError: for `trained_betas` that are not one for each timestep, or beside words that make another curve, and for a
                `dynamic_thresholding_ratio` that is none.
        """
        check_ratio(self.config.get("dynamic_thresholding_ratio", PAPER_RATIO))
        betas, timesteps = self.config.get("trained_betas"), self.config["num_train_timesteps"]
        if betas is not None and len(betas) != timesteps:
            raise ValueError(f"trained_betas are {len(betas)} and num_train_timesteps is {timesteps}; give one for each timestep")
        by_default = set(self.config.get("_use_default_values") or [])
        if {"beta_start", "beta_end"} & by_default:  # a saved configuration has every value, and its beta_schedule may mean nothing
            _check_one_curve(self.config, self.config.keys() - by_default)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """diffusers' hook behind `from_config`: take the kept values even where the other scheduler had its defaults.

        Raises:
            ValueError: between EDM's preconditioning, which has no betas, and a curve of betas: neither can be told by the other. For
                options of other schedulers, which plain diffusers ignores when they are given as keywords. For another shift or number of
                timesteps of a curve that follows from no `beta_schedule`. For keywords of two curves.
        """
        taken = cls._get_init_keys(cls)  # type: ignore[attr-defined]
        has = {"betas": bool({"beta_schedule", "trained_betas"} & config_dict.keys()), "sigma_data": "sigma_data" in config_dict}
        needed, other = ("sigma_data", "betas") if "sigma_data" in taken else ("betas", "sigma_data")
        if has[other] and not has[needed]:
            raise ValueError(
                f"{cls.__name__} is for networks trained under a scheduler with `{needed}`; the config it was given has `{other}` "
                "instead. A curve of betas and EDM's preconditioning cannot be swapped: take a scheduler of the same kind."
            )
        foreign = sorted(kwargs.keys() & (_stock_options() | _own_options(ImagenSchedulerMixin)) - taken)
        if foreign:
            raise ValueError(f"{cls.__name__} has no {', '.join(foreign)}; its options are {', '.join(sorted(taken - {'self'}))}")
        _check_one_curve({**config_dict, **kwargs}, kwargs.keys())
        if _asks_for_another_curve(config_dict, kwargs, taken):  # these were of the curve before, as what this class does not know
            config_dict = {k: v for k, v in config_dict.items() if k != "trained_betas" and (k in taken or k not in CURVE)}
        by_default = config_dict.get("_use_default_values", [])
        if "sample_max_value" in by_default:  # stock's cap, which nobody asked for
            config_dict = {**config_dict, "sample_max_value": None}
        dropped = [k for k in by_default if k not in KEPT]
        return super().extract_init_dict({**config_dict, "_use_default_values": dropped}, **kwargs)  # type: ignore[misc]

    def _threshold_sample(self, sample: Tensor) -> Tensor:
        """Stock solvers call this on x0 under `thresholding`; here it is the paper's (section 2.3), exact and at any size."""
        c = self.config
        return dynamic_threshold(sample, c.dynamic_thresholding_ratio, c.sample_max_value)


def _asks_for_another_curve(config: dict[str, Any], asked: dict[str, Any], taken: set[str]) -> bool:
    """Whether a curve is to be made from keywords and the rest of a configuration, in place of its `trained_betas`.

    Raises:
        ValueError: where the rest does not tell of what.
    """
    wanted = {name for name in asked.keys() & CURVE if name != "num_train_timesteps" or asked[name] != config.get(name)}
    if not wanted or "trained_betas" in asked:
        return False
    changes = wanted & CHANGES
    if changes and "beta_schedule" in taken - asked.keys() and not _follows(config, taken):
        raise ValueError(
            f"{', '.join(f'{name}={asked[name]}' for name in sorted(changes))} makes a curve of a beta_schedule, and the configuration's "
            "trained_betas are another curve; give beta_schedule as well, or trained_betas that are as they should be"
        )
    return True


def _check_one_curve(config: dict[str, Any], given: Collection[str]) -> None:
    """See that `trained_betas`, where they are given, are the curve of what else is given: they go before it.

    Raises:
        ValueError: naming what is of another curve.
    """
    words = [name for name in ("beta_schedule", "log_snr_shift") if name in given]
    if not words or "trained_betas" not in given or config.get("beta_schedule") not in BETA_SCHEDULES:
        return
    shift = {"log_snr_shift"}  # where it is not given, it may be of the curve before
    if not _follows(config, shift) and (shift <= set(given) or not _follows(config, set())):
        raise ValueError(
            f"trained_betas are another curve than that of {', '.join(f'{name}={config[name]}' for name in words)}, and go before it; "
            "give one of the two"
        )


def _follows(config: dict[str, Any], taken: set[str]) -> bool:
    """Whether a configuration's curve is that of its other values, of those that are `taken`: it has no betas, or these are theirs."""
    betas = config.get("trained_betas")
    if betas is None or config.get("beta_schedule") not in BETA_SCHEDULES:
        return betas is None
    ends = {name: config[name] for name in ("beta_start", "beta_end", "num_train_timesteps") if name in config}
    shift = config.get("log_snr_shift", 0.0) if "log_snr_shift" in taken else 0.0
    return same_curve(shift_betas(beta_table(config["beta_schedule"], **ends), shift).tolist(), betas)


@cache
def _stock_options() -> frozenset[str]:
    """The options of all schedulers between which diffusers swaps."""
    classes = (getattr(diffusers, e.name) for e in KarrasDiffusionSchedulers)
    return frozenset(name for c in classes for name in inspect.signature(c.__init__).parameters)


def _own_options(kind: type) -> frozenset[str]:
    """The options of the classes below this one, which are Imagen's schedulers."""
    return frozenset().union(*({*inspect.signature(c.__init__).parameters, *_own_options(c)} for c in kind.__subclasses__()))
