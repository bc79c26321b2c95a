"""Networks on a device only while they run, as diffusers offloads them, with room for networks that are graphs."""

from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline


class OffloadingPipeline(DiffusionPipeline):
    """A pipeline whose components may be networks without weights."""

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; networks without weights, which are graphs, have nothing to be moved, and stay where their runtime is."""
        order: Any = type(self).model_cpu_offload_seq
        modules = {name: getattr(self, name) for name in order.split("->")}
        graphs = [name for name, module in modules.items() if module is not None and next(module.parameters(), None) is None]
        self.model_cpu_offload_seq = "->".join(name for name in modules if name not in graphs)
        self._exclude_from_cpu_offload = [*type(self)._exclude_from_cpu_offload, *graphs]
        super().enable_model_cpu_offload(*args, **kwargs)
