"""Teach a cascade a look from 20 to 60 captioned images, by LoRA.

accelerate launch examples/finetune_style.py --train_data_dir my-drawings --output_dir my-style --max_train_steps 300 \
    --validation_prompts "a red cube" "a blue sphere"

Then: imagen-diffusers generate "a green cone" --lora my-style
"""

from collections.abc import Sequence

from imagen_diffusers.finetuning.cascade import fine_tune
from imagen_diffusers.finetuning.flags import run_script

DEFAULTS = {"rank": 16, "learning_rate": 4e-3, "lr_scheduler": "cosine", "ema_decay": 0.99, "weighting": "by_prediction"}


def main(args: Sequence[str] | None = None) -> None:
    fine_tune(args, **DEFAULTS)


if __name__ == "__main__":
    run_script(main)
