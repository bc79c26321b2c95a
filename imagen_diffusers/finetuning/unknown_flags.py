"""What is said of flags that a script does not have: of those of diffusers' scripts what does the same here."""

from collections.abc import Container, Sequence

# Flags of diffusers' scripts that are others here, or not needed.
ELSEWHERE = {
    "lr": "give --learning_rate",
    "validation_epochs": "--validation_steps of train_stage.py says how often, in steps; other scripts show images before and after",
    "num_validation_images": "one image is made of each of --validation_prompts; name a prompt several times for several images",
    "offload_ema": "averages stay where the weights are; --no_use_ema goes without them",
    "sample_batch_size": "it is of dreambooth.py, which generates images of a class",
    "prior_generation_precision": "images of the class are generated in float32, in which networks are loaded to be trained",
    "pre_compute_text_embeddings": "--text_cache takes text that imagen-diffusers encode-text has encoded once",
    "tokenizer_max_length": "give --max_sequence_length",
    "proportion_empty_prompts": "give --text_dropout",
    "train_text_encoder": "text encoders stay as they are; textual_inversion.py teaches them a word",
    "save_steps": "give --checkpointing_steps",
    "repeats": "images come again as often as --max_train_steps asks",
    "enable_xformers_memory_efficient_attention": "attention is torch's own, which needs no xformers",
}


def of_other_scripts(words: Sequence[str], options: Container[str]) -> list[str]:
    """Flags of diffusers' scripts that are none of these options; a parser would take "--lr" for a short form of several."""
    return [word for word in words if _name(word) in ELSEWHERE and word.partition("=")[0] not in options]


def not_known(rest: Sequence[str]) -> str:
    """What the parser made nothing of, and where it is a flag of diffusers' scripts, which flag does the same here."""
    names = [word.partition("=")[0] for word in rest if word.startswith("--")] or list(rest)
    told = [f"{name}: {ELSEWHERE[known]}" for name in names if (known := _name(name)) in ELSEWHERE]
    return "; ".join([f"this script has no {', '.join(names)}", *told])


def _name(word: str) -> str | None:
    """Of the flag that a word of the command line gives."""
    return word.partition("=")[0][2:].replace("-", "_") if word.startswith("--") else None
