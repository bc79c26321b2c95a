"""Prompts as they are typed, with weights or between two, to what a pipeline's call takes."""

from typing import Any

from .options import TextOptions


def texts_to_encode(prompt: str, text: TextOptions) -> list[str]:
    """All that the text encoder will read, without its weights.

    Raises:
        ValueError: for weights that cannot be read, a blend of one prompt, and two prompts without how far to go.
    """
    if (text.blend is None) != (text.blend_with is None):
        raise ValueError("--blend goes a part of the way to the prompt of --blend-with, --blend 0.5 half of it; give both, or neither")
    given = [one for one in (prompt, text.blend_with, text.negative_prompt) if one is not None]
    if not text.weights:
        return given
    from imagen_diffusers.text.weight_syntax import read_weights

    return [read_weights(one).text for one in given]


def text_arguments(pipe: Any, prompt: str, text: TextOptions) -> dict[str, Any]:
    """The arguments of a call that say this: prompts as they are, or embeddings, encoded now and for all images."""
    if not text.weights and text.blend is None:
        return {"prompt": prompt, "negative_prompt": text.negative_prompt}
    from imagen_diffusers.text.blending import slerp
    from imagen_diffusers.text.weighting import weighted_embeddings

    read = weighted_embeddings if text.weights else _embeddings
    followed = read(pipe, prompt)
    if text.blend is not None and text.blend_with is not None:
        followed = slerp(followed, read(pipe, text.blend_with), text.blend)
    negative = (None, None) if text.negative_prompt is None else read(pipe, text.negative_prompt)
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    return dict(zip(names, (*followed, *negative), strict=True))


def text_arguments_of_all(pipe: Any, prompts: list[str], text: TextOptions) -> dict[str, Any]:
    """The same for several prompts at once, each as it is by itself."""
    each = [text_arguments(pipe, prompt, text) for prompt in prompts]
    if "prompt" in each[0]:
        return {**each[0], "prompt": prompts}
    import torch

    from imagen_diffusers.text.encoding import TextEmbedding, pad_to

    texts = [TextEmbedding(one["prompt_embeds"], one["prompt_attention_mask"]) for one in each]
    longest = max(one.mask.shape[1] for one in texts)
    embeds, masks = zip(*(pad_to(one, longest) for one in texts), strict=True)
    return {**each[0], "prompt_embeds": torch.cat(embeds), "prompt_attention_mask": torch.cat(masks)}


def _embeddings(pipe: Any, prompt: str) -> tuple[Any, Any]:
    embeds, _, mask, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
    return embeds, mask
