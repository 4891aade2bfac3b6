"""A vehicle ready to draw, put together from its bodies and wheels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.synth.vehicles.atlas import PER_METRE
from tools.synth.vehicles.mesh import Mesh, Shell, disc, join, loft, tread

__all__ = ["LEVELS", "Body", "Vehicle", "build"]

# profile step, quads across, quads down: for vehicles above 150, 45 and 0 px high
LEVELS = ((1, 10, 7), (2, 6, 4), (4, 2, 3))


@dataclass(frozen=True)
class Body:
    """A shell with its atlas positions; `centre` shifts it along the vehicle."""

    shell: Shell
    strip_at: tuple[float, float]
    side_at: tuple[float, float]
    centre: float = 0.0


@dataclass(frozen=True)
class Vehicle:
    """A vehicle.

    Attributes:
        kind: the label, "car", "truck" or "bus".
        length, width, height: metres.
        bodies: meshes for each of LEVELS, for each part (a cab, a box), nearest the front first.
        under: meshes of wheels' treads, drawn before the bodies; faces: of wheels' sides, drawn after them.
        atlas: uint8, `Material` numbers.
        tails, heads: lamp positions, float32 (n, 3), vehicle axes.
        floor: z of the underside.
    """

    kind: str
    length: float
    width: float
    height: float
    bodies: tuple[tuple[Mesh, ...], ...]
    under: Mesh
    faces: Mesh
    atlas: NDArray[np.uint8]
    tails: NDArray[np.float32]
    heads: NDArray[np.float32]
    floor: float


def build(
    kind: str,
    bodies: list[Body],
    axles: list[float],
    radius: float,
    tyre: float,
    wheel: tuple[tuple[float, float], float],
    atlas: NDArray[np.uint8],
    tails: list[tuple[float, float, float]],
    heads: list[tuple[float, float, float]],
    *,
    extra: list[Mesh] | None = None,
) -> Vehicle:
    """Put a vehicle together.

    Args:
        axles: x of each; radius, tyre: of the wheels, metres; wheel: as `wheel_picture` gives it.
        tails, heads: lamps on the left; the right ones mirror them.
        extra: more meshes for the two finer levels (mirrors).
    """
    meshes, width = [], 0.0
    for body in bodies:
        levels = []
        for number, (step, across, down) in enumerate(LEVELS):
            mesh = loft(body.shell, step, across, down, body.strip_at, body.side_at, PER_METRE)
            mesh = Mesh(mesh.corners + np.array([body.centre, 0, 0], np.float32), mesh.normals, mesh.texture)
            width = max(width, float(mesh.corners[..., 1].max()) * 2)  # without mirrors
            if extra and body is bodies[0] and number < 2:
                mesh = join([mesh, *extra])
            levels.append(mesh)
        meshes.append(tuple(levels))
    points = np.concatenate([level[0].corners.reshape(-1, 3) for level in meshes])
    place, size = wheel
    rubber = (place[0] + 0.9 * size, place[1])
    under, faces = [], []
    for x in axles:
        for side in (-1.0, 1.0):
            half = max(_half(body, x) for body in bodies)
            y = side * (half - tyre / 2 + 0.01)
            under.append(tread((x, y, radius), radius, tyre, rubber))
            faces.append(disc((x, y + side * tyre / 2, radius), radius, side, place, size))
            under.append(disc((x, y - side * tyre / 2, radius), radius, -side, rubber, 1.0))

    def both(lamps: list[tuple[float, float, float]]) -> NDArray[np.float32]:
        return np.array([(x, y * side, z) for x, y, z in lamps for side in (-1, 1)], np.float32).reshape(-1, 3)

    floor = min(body.shell.floor for body in bodies)
    length, height = float(np.ptp(points[:, 0])), float(points[:, 2].max())
    return Vehicle(
        kind, length, width, height, tuple(meshes), join(under), join(faces), atlas, both(tails), both(heads), floor
    )


def _half(body: Body, x: float) -> float:
    """Half its width at hub height, at the vehicle's x or at its nearest end."""
    reach = 0.45 * body.shell.length
    inside = min(max(x - body.centre, -reach), reach)
    return float(body.shell.half_width(np.float32(inside), np.float32(0.5)))
