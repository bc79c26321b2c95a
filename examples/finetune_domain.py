"""Move a whole cascade to a domain (medical, fashion, architecture, ...) with a folder of captioned images.

accelerate launch examples/finetune_domain.py --pretrained_model_name_or_path imagen-emoji --train_data_dir my-facades \
    --output_dir my-imagen --max_train_steps 5000 --mixed_precision bf16

Transparent images, a folder of icons say, are laid on white. Other backgrounds, places and sizes at each visit are examples/emoji, which
trains on folders of one's own, too.

Every weight of every stage is trained, and the result is a cascade; with --rank 32 it is a LoRA file, as from finetune_style.py.
"""

from collections.abc import Sequence

from imagen_diffusers.finetuning.cascade import fine_tune
from imagen_diffusers.finetuning.flags import run_script

DEFAULTS = {"learning_rate": 2e-5, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 100, "ema_decay": 0.999}


def main(args: Sequence[str] | None = None) -> None:
    fine_tune(args, **DEFAULTS)


if __name__ == "__main__":
    run_script(main)
