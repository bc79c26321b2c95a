"""The checks of prompts and embeddings. Every error says what was given, what is allowed and what to do."""

import torch
from torch import Tensor

from imagen_diffusers.text.encoding import TextEmbedding


def listed(prompts: str | list[str]) -> list[str]:
    """One prompt or several as a list; a `ValueError` for none and for what is no string."""
    found: list[str] = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    if not found:
        raise ValueError("the list of prompts, or of negative ones, is empty; give at least one prompt")
    for prompt in found:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt is a {type(prompt).__name__}; give a string, or a list of strings")
    return found


def checked(name: str, embeds: Tensor, mask: Tensor | None, *, tokenless: bool = False, zeros_pad: bool = False) -> TextEmbedding:
    """Embeddings with their mask, which has a token in every row unless they may be `tokenless`.

    Without a mask every row is a token, or, where `zeros_pad` (imagen-pytorch's way), every row but those of zeros.
    """
    for argument, value in ((name, embeds), (f"the mask of {name}", mask)):
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(f"{argument} is a {type(value).__name__}; give a tensor")
    if embeds.ndim != 3:
        raise ValueError(f"{name} have the shape {tuple(embeds.shape)}; they must be (prompts, tokens, width)")
    if not torch.isfinite(embeds).all():
        raise ValueError(f"{name} hold NaN or infinite values; encode the prompt in a wider dtype (T5 overflows in float16)")
    if mask is None:
        mask = (embeds != 0).any(dim=-1) if zeros_pad else torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        if not (tokenless or mask.any(dim=1).all()):
            raise ValueError(f"{name} hold a prompt of zeros alone, which are padding to these networks; give its embeddings, or a mask")
    mask = mask.bool()
    if mask.shape != embeds.shape[:2] or not (tokenless or mask.any(dim=1).all()):
        tokens = "" if tokenless else ", with a token in every row"
        raise ValueError(f"the mask of {name} is {tuple(mask.shape)}; it must be {tuple(embeds.shape[:2])}{tokens}")
    return TextEmbedding(embeds, mask)


def check_one_for_each(negatives: int, prompts: int) -> None:
    """A `ValueError` unless there is one negative prompt for all or one each."""
    if negatives not in (1, prompts):
        raise ValueError(f"{negatives} negative prompts for {prompts} prompts; give one, or one per prompt")


def one_for_each(null: TextEmbedding, text: TextEmbedding) -> TextEmbedding:
    """A row of negative text for each row of text, where there is one for all or one each."""
    have, want = len(null.embeds), len(text.embeds)
    check_one_for_each(have, want)
    if null.embeds.shape[-1] != text.embeds.shape[-1]:
        raise ValueError(
            f"negative_prompt_embeds are {null.embeds.shape[-1]} wide and the prompt's {text.embeds.shape[-1]}; encode both by the text "
            "encoder that the networks were trained with"
        )
    return null if have == want else TextEmbedding(null.embeds.expand(want, -1, -1), null.mask.expand(want, -1))
