"""Scenes to images: an analytic ray tracer in plain tensor operations, batched over scenes.

`render(scenes, size)` draws any size, and with `crop` any window of that size, the same pixels either way. It runs on
whatever device it is given; `compile=True` fuses the arithmetic. This file knows scenes and no captions.

A texture too fine for the pixels (a period under two of them) is drawn as its mean, which is what infinitely many
samples would give: at 64px nothing tells fine stripes from dots.

Letters in shapes: B scenes, R rays per scene, K = 3 object slots. Every solid here is convex, so a ray meets it in one
interval of distances, and "the nearest hit" is where that interval begins.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .camera import EYE, TARGET, VIEW_WIDTH
from .scene import FLOOR_PATTERNS, RADIUS, SHAPES, TEXTURES, Scene

SLOTS = 3
FINE_PERIOD, COARSE_PERIOD = 0.085, 0.5  # a 64px pixel is 0.069 wide at the target
TILE, GROUT = 1.0, 0.06  # the grout's width as a share of a tile's
EPSILON = 1e-3

FLOOR_ALBEDO = {
    "gray": (0.46, 0.46, 0.47),
    "brown": (0.47, 0.33, 0.22),
    "green": (0.33, 0.46, 0.33),
    "blue": (0.34, 0.42, 0.56),
    "white": (0.80, 0.79, 0.77),
}
HALF_HEIGHT = {"sphere": 1.0, "cube": 0.8, "cylinder": 0.9, "cone": 1.0}  # of a solid of radius 1
CYLINDER_RADIUS, CONE_RADIUS = 0.8, 0.95


class Solids(NamedTuple):
    """The objects of B scenes as numbers, each (B, 1, K); `alive` is 0 in an empty slot, `detail` where it averages out."""

    x: Tensor
    y: Tensor
    z: Tensor
    radius: Tensor
    cos: Tensor
    sin: Tensor
    shape: Tensor
    texture: Tensor
    metal: Tensor
    red: Tensor
    green: Tensor
    blue: Tensor
    alive: Tensor
    detail: Tensor


class Surroundings(NamedTuple):
    """Floor and light of B scenes: colours and places (B, 1, 3), the pattern's index (B, 1)."""

    floor: Tensor
    pattern: Tensor
    light: Tensor


def render(
    scenes: list[Scene],
    size: int,
    *,
    crops: list[tuple[int, int]] | None = None,
    crop_size: int | None = None,
    samples: int = 2,
    device: torch.device | str = "cpu",
    compile: bool = False,
) -> Tensor:
    """Draw scenes: (B, 3, size, size) in [-1, 1], or a window of each.

    Args:
        scenes: B scenes.
        size: side of the whole image in pixels.
        crops: (top, left) of each scene's window, in pixels of the whole image; None draws all of it.
        crop_size: side of the windows.
        samples: rays per pixel are samples squared, on a regular grid, each with its own point on the light, so
            shadows have soft edges.
        device: where to draw.
        compile: fuse the arithmetic (needs a C++ compiler on a CPU).
    """
    side = crop_size or size
    top, left = torch.tensor(crops or [(0, 0)], dtype=torch.float32, device=device).unbind(-1)
    solids, around = _tensors(scenes, 2 * VIEW_WIDTH / size <= FINE_PERIOD, torch.device(device))
    shade = _compiled_shade() if compile else _shade
    total = torch.zeros(len(scenes), 3, side * side, device=device)
    for i in range(samples * samples):
        dx, dy = (i % samples + 0.5) / samples, (i // samples + 0.5) / samples
        origin, direction = _camera_rays(size, top + dy, left + dx, side)
        turn = 2 * math.pi * (i * 0.618 % 1)
        radius = 0.45 * math.sqrt((i + 0.5) / samples**2)
        offset = torch.tensor([radius * math.cos(turn), 0.0, radius * math.sin(turn)], device=device)
        total += _trace(origin, direction, solids, around._replace(light=around.light + offset), shade)
    linear = (total / samples**2).clamp(0, 1)
    return (2 * linear.sqrt() - 1).unflatten(2, (side, side))  # square root: the eye's gamma, cheaply


def as_image(pixels: Tensor) -> Image.Image:
    """A render, or what is generated in its place, (3, H, W) in [-1, 1], with 8 bits a channel."""
    return Image.fromarray(((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _tensors(scenes: list[Scene], detail: bool, device: torch.device) -> tuple[Solids, Surroundings]:
    rows = []
    for scene in scenes:
        for slot in range(SLOTS):
            o = scene.objects[min(slot, len(scene.objects) - 1)]
            r = RADIUS[o.size]
            row = [o.x, HALF_HEIGHT[o.shape] * r, o.z, r, math.cos(o.yaw), math.sin(o.yaw), SHAPES.index(o.shape)]
            row += [TEXTURES.index(o.texture), o.material == "metal", *o.paint, slot < len(scene.objects), detail]
            rows.append(row)
    table = torch.tensor(rows, dtype=torch.float32, device=device).view(len(scenes), 1, SLOTS, -1)
    floor = [[*FLOOR_ALBEDO[s.floor_color], FLOOR_PATTERNS.index(s.floor_pattern), *s.light] for s in scenes]
    ground = torch.tensor(floor, dtype=torch.float32, device=device)[:, None]
    return Solids(*table.unbind(-1)), Surroundings(ground[..., :3], ground[..., 3], ground[..., 4:])


def _camera_rays(size: int, top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rays through a window of the image at `top`, `left` (B,) or (1,): origins and unit directions (B, R, 3)."""
    eye, target = torch.tensor(EYE, device=top.device), torch.tensor(TARGET, device=top.device)
    forward = F.normalize(target - eye, dim=0)
    right = torch.tensor([1.0, 0.0, 0.0], device=top.device)
    up = torch.linalg.cross(forward, right)
    pixel = VIEW_WIDTH / (target - eye).norm() / size
    along = torch.arange(side, device=top.device)
    v = (size / 2 - top[:, None] - along) * pixel  # B H
    u = (left[:, None] + along - size / 2) * pixel  # B W
    direction = forward + v[:, :, None, None] * up + u[:, None, :, None] * right
    direction = F.normalize(direction.flatten(1, 2), dim=-1)
    return eye.expand_as(direction), direction


def _trace(origin: Tensor, direction: Tensor, solids: Solids, around: Surroundings, shade: Callable) -> Tensor:
    """Light arriving along each ray, linear, (B, 3, R): one bounce, followed only where a ray met metal."""
    light, tint, bounced, metal = shade(origin, direction, solids, around)
    scene, ray = metal.nonzero(as_tuple=True)  # every such ray becomes a scene of one ray
    start, heading = (v[scene, ray][:, None] for v in bounced)
    here = Solids(*(f[scene] for f in solids)), Surroundings(*(f[scene] for f in around))
    reflected = shade(start, heading, *here)[0]
    light[scene, ray] += tint[scene, ray] * reflected[:, 0]
    return light.transpose(1, 2)


@cache
def _compiled_shade() -> Callable:
    return torch.compile(_shade, dynamic=True)


def _shade(origin: Tensor, direction: Tensor, solids: Solids, around: Surroundings):
    """What each ray sees, without reflections.

    Returns the light (B, R, 3), the tint of a mirror there (B, R, 3), the mirrored ray (origin and direction, each
    (B, R, 3)) and whether there is a mirror (B, R).
    """
    begin = _nearest(origin, direction, solids)
    distance, slot = begin.min(dim=-1, keepdim=True)
    floor_distance = torch.where(direction[..., 1:2] < -1e-4, -origin[..., 1:2] / direction[..., 1:2].clamp(max=-1e-4), torch.inf)
    on_floor = floor_distance < distance
    on_sky = torch.minimum(distance, floor_distance) > 60
    travelled = torch.minimum(distance, floor_distance).clamp(max=60)
    point = origin + travelled * direction

    chosen = Solids(*(f.expand_as(begin).gather(-1, slot)[..., 0] for f in solids))
    local = _to_local(point, chosen)
    local_normal = _local_normal(local, chosen)
    up = torch.tensor([0.0, 1.0, 0.0], device=point.device)
    normal = torch.where(on_floor, up, _from_local(local_normal, chosen))
    paint = torch.stack((chosen.red, chosen.green, chosen.blue), -1)
    paint = _texture(paint, local * chosen.radius[..., None], local_normal, chosen)
    albedo = torch.where(on_floor, _floor_pattern(around, point), paint)
    metal = torch.where(on_floor, 0.0, chosen.metal[..., None])

    to_light = F.normalize(around.light - point, dim=-1)
    shadow = _nearest(point + EPSILON * 4 * normal, to_light, solids).amin(-1, keepdim=True) < 60
    facing = (to_light * normal).sum(-1, keepdim=True).clamp(min=0) * ~shadow
    halfway = F.normalize(to_light - direction, dim=-1)
    shine = (halfway * normal).sum(-1, keepdim=True).clamp(min=0) * ~shadow
    ambient = 0.30 + 0.12 * normal[..., 1:2]
    diffuse = albedo * (ambient + 0.75 * facing) * (1 - 0.6 * metal)
    gloss = torch.where(on_floor, 0.0, 0.12 * shine**12 * (1 - metal) + 0.9 * shine**60 * metal)
    sky = 0.55 + 0.45 * direction[..., 1:2].clamp(0, 1) + torch.zeros_like(albedo)
    toward = (direction * normal).sum(-1, keepdim=True)
    tint = 0.65 * (albedo + (1 - albedo) * (1 + toward).clamp(0, 1) ** 4)  # metal whitens at grazing angles
    mirrored = point + EPSILON * 4 * normal, direction - 2 * toward * normal
    return torch.where(on_sky, sky, diffuse + gloss), tint, mirrored, (metal > 0)[..., 0]


def _to_local(point: Tensor, s: Solids) -> Tensor:
    """World to a solid's own frame, where its radius is 1: (B, R, 3)."""
    x, y, z = point[..., 0] - s.x, point[..., 1] - s.y, point[..., 2] - s.z
    return torch.stack((s.cos * x - s.sin * z, y, s.sin * x + s.cos * z), -1) / s.radius[..., None]


def _from_local(vector: Tensor, s: Solids) -> Tensor:
    x, y, z = vector.unbind(-1)
    return torch.stack((s.cos * x + s.sin * z, y, s.cos * z - s.sin * x), -1)


def _nearest(origin: Tensor, direction: Tensor, s: Solids) -> Tensor:
    """Where each ray enters each solid: distances (B, R, K), infinite for a miss."""
    px, py, pz = (origin[..., i : i + 1] for i in range(3))
    dx, dy, dz = (direction[..., i : i + 1] for i in range(3))
    x, y, z = px - s.x, (py - s.y) / s.radius, pz - s.z
    x, z = (s.cos * x - s.sin * z) / s.radius, (s.sin * x + s.cos * z) / s.radius
    a, b, c = (s.cos * dx - s.sin * dz) / s.radius, dy / s.radius, (s.sin * dx + s.cos * dz) / s.radius
    sphere, cube, cylinder, cone = (s.shape == i for i in range(4))

    # Round in x and z: x^2 + z^2 <= (reach - slope y)^2, a cylinder or a cone; with y^2 added, a sphere.
    slope = torch.where(cone, CONE_RADIUS / 2, 0.0)
    reach = torch.where(cone, CONE_RADIUS / 2, torch.where(cylinder, CYLINDER_RADIUS, 1.0))
    ball = sphere.float()
    square = a * a + c * c + (ball - slope * slope) * b * b
    cross = x * a + z * c + (ball * y + slope * (reach - slope * y)) * b
    free = x * x + z * z + ball * y * y - (reach - slope * y) ** 2
    root = cross * cross - square * free
    round_ok = (root > 0) & (square > 1e-6)
    root = root.clamp(min=0).sqrt()
    square = square.clamp(min=1e-6)
    near, far = (-cross - root) / square, (root - cross) / square

    # Flat: |y| <= half height for all but the sphere, and |x|, |z| likewise for the cube.
    half = torch.where(cube, HALF_HEIGHT["cube"], torch.where(cylinder, HALF_HEIGHT["cylinder"], 1.0))
    y0, y1 = _slab(y, b, half)
    x0, x1 = _slab(x, a, half)
    z0, z1 = _slab(z, c, half)
    near = torch.where(cube, torch.maximum(x0, z0), near)
    far = torch.where(cube, torch.minimum(x1, z1), far)
    near = torch.where(sphere, near, torch.maximum(near, y0))
    far = torch.where(sphere, far, torch.minimum(far, y1))
    hit = (near < far) & (near > 0) & (round_ok | cube) & (s.alive > 0)
    return torch.where(hit, near, torch.inf)


def _slab(place: Tensor, speed: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(speed.abs() < 1e-7, 1e-7, speed)
    one, two = (-half - place) * inverse, (half - place) * inverse
    return torch.minimum(one, two), torch.maximum(one, two)


def _local_normal(local: Tensor, s: Solids) -> Tensor:
    """Outward unit normal at a point on a solid, in its own frame: (B, R, 3)."""
    x, y, z = local.unbind(-1)
    zero = torch.zeros_like(x)
    shape = s.shape[..., None]
    largest = local.abs().amax(-1, keepdim=True)
    box = torch.where(local.abs() >= largest - 1e-4, local.sign(), 0.0)
    slope = CONE_RADIUS / 2
    mantle = torch.where(shape == 3, torch.stack((x, slope * slope * (1 - y), z), -1), torch.stack((x, zero, z), -1))
    limit = torch.where(s.shape == 3, HALF_HEIGHT["cone"], HALF_HEIGHT["cylinder"])
    cap = ((y > limit - EPSILON) & (s.shape == 2)) | (y < EPSILON - limit)
    capped = torch.where(cap[..., None], torch.stack((zero, y.sign(), zero), -1), mantle)
    return F.normalize(torch.where(shape == 0, local, torch.where(shape == 1, box, capped)), dim=-1)


def _texture(paint: Tensor, place: Tensor, normal: Tensor, s: Solids) -> Tensor:
    """Paint a solid: white bands or checks (coarse), engraved dark ones (fine); mapped along the normal's main axis."""
    x, y, z = place.unbind(-1)
    ax, ay, az = normal.abs().unbind(-1)
    flat = (ay > ax) & (ay > az)
    u = torch.where(flat | (az >= ax), x, z)
    v = torch.where(flat, z, y)
    texture, fine = s.texture, s.texture >= 3
    period = torch.where(fine, FINE_PERIOD, COARSE_PERIOD)
    fu, fv = (u / period + 0.25) % 1, (v / period + 0.25) % 1  # so that a mirrored pattern is the same pattern
    stripe = fv < 0.5
    check = (fu < 0.5) ^ (fv < 0.5)
    du, dv = (u / period + 0.5) % 1 - 0.5, (v / period + 0.5) % 1 - 0.5
    dot = du * du + dv * dv < 0.5 / math.pi  # marks half the area, as the others do: equal means
    marked = torch.where(texture == 4, dot, torch.where((texture == 1) | (texture == 3), stripe, check)) & (texture > 0)
    share = torch.where(fine & (s.detail < 1), 0.5, marked.float())[..., None]
    mark = torch.where(fine[..., None], 0.18 * paint, 0.25 * paint + 0.68)
    return torch.lerp(paint, mark, share)


def _floor_pattern(around: Surroundings, point: Tensor) -> Tensor:
    x, z = point[..., 0] / TILE + 0.5, point[..., 2] / TILE  # a tile in the middle: a mirrored floor is the same floor
    seam = torch.minimum((x + GROUT / 2) % 1, (z + GROUT / 2) % 1)
    grout = (seam < GROUT) & (around.pattern == 1)
    dark = ((x.floor() + z.floor()) % 2 > 0.5) & (around.pattern == 2)
    factor = torch.where(grout, 0.55, torch.where(dark, 0.62, 1.0))
    return around.floor * factor[..., None]
