"""Compiled networks: one graph a stage and batch size, whatever the prompt."""

from typing import Any

from imagen_diffusers.text.t5 import TextEmbedding, pad_to


class CompilingMixin:
    """`pipe.compile()`."""

    config: Any
    stage_numbers: Any
    slots: Any
    _compiled = False

    def compile(self, **options: Any) -> None:
        """Compile the network of every stage, as whole graphs for fixed shapes.

        From now on text is padded to `max_sequence_length`, and masked there, so that all prompts run the same graphs. The first
        call with another size, number of pictures, or guidance switched on or off compiles anew.

        Args:
            options: of `torch.compile`, in place of `fullgraph=True, dynamic=False`; `mode="reduce-overhead"` records CUDA graphs.
        """
        for number in self.stage_numbers:
            getattr(self, self.slots(number)[0]).compile(**{"fullgraph": True, "dynamic": False, **options})
        self._compiled = True

    def as_compiled(self, text: TextEmbedding) -> TextEmbedding:
        """The text as long as the compiled networks have met it; as it is where none is compiled."""
        return pad_to(text, max(self.config["max_sequence_length"], text.mask.shape[1])) if self._compiled else text
