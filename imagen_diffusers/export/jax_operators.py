"""Operators of ONNX that jaxonnxruntime 0.3 does not know and graphs of cascades have, in JAX."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax  # pyright: ignore[reportMissingImports] (an extra)
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import jaxonnxruntime.onnx_ops  # noqa: F401  # pyright: ignore[reportMissingImports] (registers those that it knows)
from jaxonnxruntime.core.handler import Handler, register_op  # pyright: ignore[reportMissingImports]

Array: TypeAlias = Any  # jax.Array, which a type checker lacks where the extra is not installed


def depth_to_space(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Channels to pixels (B, C, H, W), as torch's PixelShuffle has them (mode "CRD")."""
    b, c, h, w = x.shape
    shape, order = {
        "CRD": ((b, -1, blocksize, blocksize, h, w), (0, 1, 4, 2, 5, 3)),
        "DCR": ((b, blocksize, blocksize, -1, h, w), (0, 3, 4, 1, 5, 2)),
    }[mode]
    return x.reshape(shape).transpose(order).reshape(b, c // blocksize**2, h * blocksize, w * blocksize)


def instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    """Over all but rows and channels (B, C, ...)."""
    rest = tuple(range(2, x.ndim))
    wide = (1, -1, *(1 for _ in rest))
    return _normalized(x, rest, epsilon) * scale.reshape(wide) + bias.reshape(wide)


def layer_normalization(x: Array, scale: Array, bias: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5) -> Array:
    normalized = _normalized(x, tuple(range(axis % x.ndim, x.ndim)), epsilon) * scale
    return normalized if bias is None else normalized + bias


def _normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(axes, keepdims=True) + epsilon)


OPERATORS: dict[str, tuple[int, Callable[..., Array]]] = {
    "DepthToSpace": (13, depth_to_space),
    "InstanceNormalization": (6, instance_normalization),
    "IsNaN": (13, jnp.isnan),
    "LayerNormalization": (17, layer_normalization),
}
"""Each with the opset it is of."""


def register() -> None:
    """Let jaxonnxruntime know them; those that it knows by itself stay its own."""
    for name in lacking(OPERATORS):
        version, function = OPERATORS[name]
        _HANDLERS.append(register_op(name)(type(name, (Handler,), {f"version_{version}": classmethod(partial(_given, function))})))


def lacking(operators: Iterable[str]) -> list[str]:
    """Those of these operators, by name, that jaxonnxruntime does not know."""
    return sorted(set(operators) - {kind.OP_TYPE for kind in Handler.__subclasses__()})


_HANDLERS: list[Any] = []  # which jaxonnxruntime finds among its classes while something holds them


def _given(function: Callable[..., Array], handler: type, node: Any, inputs: Sequence[Any]) -> Callable[..., Array]:
    """The function, with those of the node's attributes that it takes."""
    taken = inspect.signature(function).parameters
    return partial(function, **{name: _text(value) for name, value in node.attrs.items() if name in taken})


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
