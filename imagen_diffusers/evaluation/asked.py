"""What an evaluation was asked for, beside what it has measured, so that nothing measured otherwise is taken into it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import unwrap_module
from PIL import Image
from torch import Tensor

from imagen_diffusers.pipelines.cascade import Cascade
from imagen_diffusers.pipelines.lora_scales import acting_scales
from imagen_diffusers.training.folders import in_one_rename
from imagen_diffusers.training.processes import main_decides

from .digests import text_digest, weights_digest
from .groups import GROUP_FILES, UNJOINED

FILE = "run.json"


def cascade_digest(pipe: Cascade) -> str:
    """What changes with the settings of a cascade, its schedulers and tiles, any weight tensor, or graph, of its networks and text encoder,
    and by what adapters are weighted.

    Graphs count with the precision that they run in, which weights show in their type. Weights that a sequential offload keeps from being
    read do not count.
    """
    schedulers = [pipe.scheduler_of(number) for number in pipe.stage_numbers]
    decisive = [f"{type(scheduler).__name__} {_settings(scheduler)}" for scheduler in schedulers]
    decisive.append(repr(_settings(pipe)))
    networks = [unwrap_module(pipe.unet_of(number)) for number in pipe.stage_numbers]
    for module in filter(None, [*networks, pipe.text_encoder]):
        decisive.append(weights_digest({name: weight for name, weight in module.state_dict().items() if not weight.is_meta}))
        decisive.append(getattr(module, "computes_in", "").replace("f32", ""))  # so that what was measured before graphs said it counts
        decisive.append(repr(scales) if (scales := acting_scales(module)) else "")  # likewise
    decisive.append("" if pipe._tiles is None else f"tiles {pipe._tiles}")
    return text_digest("".join(decisive))


def keep_or_refuse(folder: Path, asked: dict[str, Any]) -> None:
    """Note what is asked for in a new folder; in one that is there already it must be the same, on all processes.

    Raises:
        ValueError: for anything else, naming what differs, and for notes that are damaged.
    """
    main_decides(lambda: _keep(folder, asked))


def read_notes(path: Path) -> dict[str, Any]:
    """What a JSON file says that stands beside measurements.

    Raises:
        OSError: for one that is damaged, or of something else, naming it.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise OSError(f"{path} is damaged, or a file of something else; delete it, and run the command again")
    return told


def as_json(told: dict[str, Any]) -> str:
    """JSON of what was asked for: images and tensors by a digest, and what else it has no form for, such as guiders, as it prints."""
    return json.dumps(told, indent=2, ensure_ascii=False, default=_in_words)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there in whole, or not at all."""
    with in_one_rename(path) as part:
        part.write_text(text, encoding="utf-8")


def _in_words(value: Any) -> str:
    if isinstance(value, Image.Image):
        value = np.array(value)
    if isinstance(value, Tensor | np.ndarray):
        return f"{tuple(value.shape)} {weights_digest({'': torch.as_tensor(value)})}"
    return repr(value)


def _settings(configured: Any) -> list[tuple[str, Any]]:
    """What a configuration sets, without diffusers' own notes and the classes of components."""
    return sorted((name, value) for name, value in configured.config.items() if name[0] != "_" and not isinstance(value, tuple))


def _keep(folder: Path, asked: dict[str, Any]) -> None:
    path, text = folder / FILE, as_json(asked)
    measured = [path for path in folder.glob(f"*/{GROUP_FILES}") if path.parent.suffix != UNJOINED]  # and not those of a reference
    if not measured:  # whatever was asked for there before
        return write_whole(path, text + "\n")
    if not path.exists():
        raise ValueError(f"{folder} holds measurements and no {FILE} that says what of. Give another --output, or delete that folder")
    try:
        before, now = read_notes(path), json.loads(text)
    except OSError:
        raise ValueError(
            f"{path} is damaged, so that nothing says what was measured there. Give another --output, or delete that folder"
        ) from None
    other = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if other:
        told = "; ".join(f"{name} was {_short(before.get(name))} and is now {_short(now.get(name))}" for name in other)
        raise ValueError(f"{folder} holds another evaluation: {told}. Give another --output, or delete that folder")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
