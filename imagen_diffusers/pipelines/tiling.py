"""`pipe.enable_slicing()` and `pipe.enable_tiling()`: less memory for large batches and large images."""

from numbers import Integral, Real

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.sampling.tiles import Pieces

from .arguments import check_count


class TilingMixin:
    """`pipe.enable_slicing()` and `pipe.enable_tiling()`, as diffusers' autoencoders have them."""

    _rows: int | None = None
    _tiles: tuple[int | None, float] | None = None

    def enable_slicing(self, slice_size: int = 1) -> None:
        """Run the networks on at most `slice_size` images at a time; a guided image counts two."""
        check_count("slice_size", slice_size)
        self._rows = slice_size

    def disable_slicing(self) -> None:
        self._rows = None

    def enable_tiling(self, tile_size: int | None = None, tile_overlap_factor: float = 0.25) -> None:
        """Run the super-resolution networks on overlapping tiles of larger images; a base, which composes, always sees all of its own.

        Args:
            tile_size: in pixels; by default what each stage was trained for, so that a 2048px image takes the memory of a 1024px one.
            tile_overlap_factor: share of a tile that its neighbour sees, too, in [0, 1).

        Raises:
            ValueError: for what is no such number.
        """
        if tile_size is not None and (not isinstance(tile_size, Integral) or tile_size < 1):
            raise ValueError(f"tile_size is {tile_size!r}; give a side in pixels, a whole number, for example 512")
        if not isinstance(tile_overlap_factor, Real) or not 0 <= float(tile_overlap_factor) < 1:
            raise ValueError(f"tile_overlap_factor is {tile_overlap_factor!r}; give a share of the tile in [0, 1), for example 0.25")
        self._tiles = (tile_size, tile_overlap_factor)

    def disable_tiling(self) -> None:
        self._tiles = None

    def pieces(self, network: StageNetwork) -> Pieces:
        """What this network is given at once."""
        if self._tiles is None or not network.has_low_res:
            return Pieces(self._rows)
        return Pieces(self._rows, self._tiles[0] or network.sample_size, self._tiles[1])
