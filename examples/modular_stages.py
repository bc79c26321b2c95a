"""The cascade as blocks of Modular Diffusers, with a block of one's own between the base and the first super-resolution stage.

    python examples/modular_stages.py "a large red metal sphere on a gray floor" --output modular.png

Each stage is a block that runs a pipeline of this package on what the block before it left in the state; anything that takes and returns
images can stand between two of them. Here it is `Mirror`, which exchanges left and right.
"""

import argparse
from typing import Any

import torch
from diffusers.modular_pipelines import (
    ComponentSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
    SequentialPipelineBlocks,
)

from imagen_diffusers import ImagenCascadePipeline, ImagenCascadeUpscalePipeline, bundled
from imagen_diffusers.finetuning.flags import run_script

IMAGES = OutputParam("images", type_hint=torch.Tensor, description="(N, C, H, W) in [0, 1].")


class CascadeBlock(ModularPipelineBlocks):
    """What the blocks below share: the cascade, a prompt and a seed."""

    model_name = "imagen-cascade"

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("cascade", ImagenCascadePipeline)]

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("prompt", required=True), InputParam("seed", default=0)]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [IMAGES]

    def finish(self, state: PipelineState, block_state: Any, pipe: Any, **call: Any) -> PipelineState:
        """Run a pipeline and leave its images in the state."""
        generator = torch.Generator().manual_seed(block_state.seed)
        block_state.images = pipe(block_state.prompt, generator=generator, output_type="pt", **call).images
        self.set_block_state(state, block_state)
        return state


class Base(CascadeBlock):
    """The base stage."""

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        return components, self.finish(state, self.get_block_state(state), components.cascade, stop_at=1)


class Enlarge(CascadeBlock):
    """The super-resolution stages."""

    @property
    def inputs(self) -> list[InputParam]:
        return [*super().inputs, InputParam("images", required=True)]

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        block_state = self.get_block_state(state)
        pipe = ImagenCascadeUpscalePipeline.from_pipe(components.cascade)
        return components, self.finish(state, block_state, pipe, image=block_state.images)


class Mirror(ModularPipelineBlocks):
    """Left and right exchanged."""

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("images", required=True)]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [IMAGES]

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        block_state = self.get_block_state(state)
        block_state.images = block_state.images.flip(-1)
        self.set_block_state(state, block_state)
        return components, state


def modular(cascade: ImagenCascadePipeline, *between: tuple[str, type[ModularPipelineBlocks]]) -> ModularPipeline:
    """The cascade as blocks, with these named ones between its base and its super-resolution stages."""
    blocks = SequentialPipelineBlocks.from_blocks_dict({"base": Base, "enlarge": Enlarge})
    for i, (name, block) in enumerate(between, start=1):
        blocks.sub_blocks.insert(name, block(), i)
    pipeline = blocks.init_pipeline()
    pipeline.update_components(cascade=cascade)
    return pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--model", default=bundled("imagen-scenes"), help="a folder or Hub id")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="modular.png")
    args = parser.parse_args()
    cascade = ImagenCascadePipeline.from_pretrained(args.model)
    pipeline = modular(cascade, ("mirror", Mirror))
    print(pipeline.blocks)
    images = pipeline(prompt=args.prompt, seed=args.seed, output="images")
    cascade.image_processor.numpy_to_pil(images.permute(0, 2, 3, 1).numpy())[0].save(args.output)


if __name__ == "__main__":
    run_script(main)
