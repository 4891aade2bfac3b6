"""What a road consists of: lanes, markings, kerbs, verges, barriers and side roads, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tools.synth.randoms import Random

__all__ = ["LEGIBLE", "Junction", "Lane", "Line", "Plan", "Strip", "sample_plan"]

OUTER = 90.0  # metres to each side that the cross-section covers
# The drivable area ends at paint that shows at least so much, or where the surface changes: people label what they see,
# and a network can only guess an edge that is not in the picture.
LEGIBLE = 0.6


@dataclass(frozen=True)
class Strip:
    """Ground of one kind between two distances from the camera's path, metres."""

    left: float
    right: float
    kind: str


@dataclass(frozen=True)
class Lane:
    """A lane for traffic: its centre, its width and where it leads (1 with us, -1 against us)."""

    centre: float
    width: float
    direction: int


@dataclass(frozen=True)
class Line:
    """A painted line.

    Attributes:
        d: its centre, metres.
        colour: "white" or "yellow".
        style: "solid", "dashed", "double" or "half" (solid beside dashed).
        width: metres of one stripe.
        dash, gap: metres.
        seen: 0..1, what wear has left.
    """

    d: float
    colour: str
    style: str
    width: float
    dash: float = 3.0
    gap: float = 9.0
    seen: float = 1.0


@dataclass(frozen=True)
class Junction:
    """A road that crosses or joins between two distances ahead."""

    start: float
    end: float
    left: bool
    right: bool


@dataclass(frozen=True)
class Plan:
    """A road's cross-section and what stands beside it.

    Attributes:
        kind: "highway", "city", "residential" or "rural"; scene: BDD's word.
        left, right: edges of the road that we may drive on; strips of kind "road".
        paved_left, paved_right: edges of everything paved.
        strips: from left to right, without gaps.
        kerbs: positions of kerb stones; +1 where the road lies to their left, -1 to their right.
        walls: (position, kind) of things that run along: "rail", "concrete", "fence", "noise", "hedge", "snow".
        parking: (centre of a row of parked vehicles, their direction).
    """

    kind: str
    scene: str
    left: float
    right: float
    paved_left: float
    paved_right: float
    strips: tuple[Strip, ...]
    lanes: tuple[Lane, ...]
    lines: tuple[Line, ...]
    kerbs: tuple[tuple[float, int], ...]
    walls: tuple[tuple[float, str], ...]
    parking: tuple[tuple[float, int], ...]
    junction: Junction | None
    crossing: float | None


@dataclass
class _Builder:
    random: Random
    strips: list[Strip] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    kerbs: list[tuple[float, int]] = field(default_factory=list)
    walls: list[tuple[float, str]] = field(default_factory=list)
    parking: list[tuple[float, int]] = field(default_factory=list)

    def paint(self, d: float, colour: str, style: str, *, faint: bool = False, border: bool = False) -> None:
        worn = faint or self.random.chance(0.12)
        seen = self.random.uniform(0.25, 0.6) if worn else self.random.uniform(0.65, 1)
        if border:
            seen = max(seen, LEGIBLE)
        dash, gap = self.random.pick([(3.0, 9.0), (3.0, 6.0), (2.0, 4.0), (4.0, 8.0), (3.0, 3.0)])
        width = self.random.uniform(0.10, 0.17)
        self.lines.append(Line(d, colour, style, width, dash, gap, seen))


def _divide(random: Random) -> str:
    """Colour of what divides the directions: yellow as on BDD's roads; white alone leaves open whose lane it is."""
    return "yellow" if random.chance(0.98) else "white"


def sample_plan(random: Random, *, snow: float) -> Plan:
    """A road somewhere: motorway, town, housing estate or country."""
    kind = random.weighted({"city": 0.42, "highway": 0.27, "residential": 0.2, "rural": 0.11})
    return {"city": _street, "highway": _highway, "residential": _street, "rural": _rural}[kind](random, kind, snow)


def _own_lanes(b: _Builder, count: int, width: float) -> tuple[float, float]:
    ours = b.random.integer(0, count - 1)
    start = -(ours + 0.5) * width + b.random.normal(0, 0.22, -0.55, 0.55)
    for i in range(count):
        b.lanes.append(Lane(start + (i + 0.5) * width, width, 1))
    end = start + count * width
    b.strips.append(Strip(start, end, "road"))
    unmarked = b.random.chance(0.04)
    first = b.random.pick(["dashed", "dashed", "dashed", "dashed", "solid"])
    sample: Line | None = None
    for i in range(1, count):
        if not unmarked:
            b.paint(start + i * width, "white", first if i == 1 else "dashed")
            sample = sample or b.lines[-1]
            b.lines[-1] = replace(b.lines[-1], dash=sample.dash, gap=sample.gap, width=sample.width)
    return start, end


def _highway(random: Random, kind: str, snow: float) -> Plan:
    b = _Builder(random)
    width = random.uniform(3.4, 3.8)
    left, right = _own_lanes(b, random.weighted({1: 0.04, 2: 0.32, 3: 0.3, 4: 0.22, 5: 0.09, 6: 0.03}), width)
    b.paint(left + random.uniform(-0.12, 0.12), _divide(random), "solid", border=True)
    b.paint(right + random.uniform(-0.12, 0.12), "white", "solid" if random.chance(0.9) else "dashed", border=True)
    inner, outer = random.uniform(0.4, 3.0), random.uniform(0.8, 3.6)
    b.strips += [Strip(left - inner, left, "shoulder"), Strip(right, right + outer, "shoulder")]
    edge_left, edge_right = left - inner, right + outer
    middle = random.pick(["concrete", "concrete", "rail", "grass"])
    gap = random.uniform(0.5, 1.2) if middle == "concrete" else random.uniform(2.0, 14.0)
    count = random.integer(2, 4)
    b.strips.append(Strip(edge_left - gap, edge_left, "shoulder" if middle == "concrete" else "verge"))
    if middle != "grass":
        b.walls.append((edge_left - 0.35, middle))
    far = edge_left - gap - random.uniform(0.5, 2.0)
    b.strips.append(Strip(far, edge_left - gap, "shoulder"))
    for i in range(count):
        b.lanes.append(Lane(far - (i + 0.5) * width, width, -1))
        if i:
            b.paint(far - i * width, "white", "dashed")
    b.paint(far, "yellow" if random.chance(0.7) else "white", "solid")
    b.paint(far - count * width, "white", "solid")
    b.strips += [Strip(far - count * width, far, "against")]
    b.strips += [Strip(far - count * width - 2.5, far - count * width, "shoulder")]
    for d in (far - count * width - 3.0, edge_right + 0.5):
        wall = random.weighted({"rail": 0.35, "concrete": 0.15, "noise": 0.12, "": 0.38})
        if wall:
            b.walls.append((d, wall))
    return _finish(b, kind, "highway", left, right, far - count * width - 2.5, edge_right, snow, None, None)


def _street(random: Random, kind: str, snow: float) -> Plan:
    b = _Builder(random)
    city = kind == "city"
    width = random.uniform(2.9, 3.6)
    both = not random.chance(0.3 if city else 0.2)  # traffic in both directions
    counts = {1: 0.38, 2: 0.36, 3: 0.19, 4: 0.07} if city else {1: 0.85, 2: 0.15}
    left, right = _own_lanes(b, random.weighted(counts), width)
    marked = random.chance(0.9 if city else 0.5)
    paved_left, paved_right = left, right
    if both:
        own = len(b.lanes)
        count = random.integer(1, own)
        if marked or own + count > 2:  # nobody leaves three lanes without a centre line
            style = random.weighted({"double": 0.5, "dashed": 0.2, "solid": 0.2, "half": 0.1})
            b.paint(left, _divide(random), style, border=True)
        else:  # all of it is ours
            b.strips.clear()
            b.strips.append(Strip(left - count * width, right, "road"))
        for i in range(count):
            b.lanes.append(Lane(left - (i + 0.5) * width, width, -1))
            if i:
                b.paint(left - i * width, "white", "dashed")
        paved_left = left - count * width
        if b.strips[0].left > paved_left + 0.01:
            b.strips.append(Strip(paved_left, left, "against"))
        left = b.strips[0].left
    for side in (-1, 1):
        edge = paved_left if side < 0 else paved_right
        parked = random.chance(0.62 if city else 0.8)
        extra = random.uniform(2.1, 2.6) if parked else max(0.0, random.uniform(-0.2, 0.6))
        bike = city and random.chance(0.12)
        ours = side > 0 or left < edge + 0.01  # else the other direction's lanes lie between
        painted = (marked and random.chance(0.75 if parked else 0.45)) or bike
        if painted:
            b.paint(edge, "white", "solid", faint=random.chance(0.3), border=ours)
        if bike:
            extra += 1.6
        if extra > 0:
            kind_beside = "road" if ours and not painted else "parking"  # without paint our area ends at the kerb
            b.strips.append(Strip(min(edge, edge + side * extra), max(edge, edge + side * extra), kind_beside))
        if parked:
            b.parking.append((edge + side * (extra - random.uniform(1.05, 1.2)), 1 if side > 0 or not both else -1))
        edge += side * extra
        if side < 0:
            paved_left = edge
            left = edge if ours and not painted else left
        else:
            paved_right = edge
            right = edge if not painted else right
        if random.chance(0.9):
            b.kerbs.append((edge, side))
    junction = None
    if random.chance(0.4):
        start = random.uniform(9, 70)
        junction = Junction(start, start + random.uniform(7, 16), random.chance(0.75), True)
    crossing = None if junction is None or random.chance(0.5) else junction.start - random.uniform(4, 5.5)
    if crossing is None and random.chance(0.08):
        crossing = random.uniform(8, 40)
    scene = "city street" if city else "residential"
    return _finish(b, kind, scene, left, right, paved_left, paved_right, snow, junction, crossing)


def _rural(random: Random, kind: str, snow: float) -> Plan:
    b = _Builder(random)
    width = random.uniform(2.8, 3.6)
    left, right = _own_lanes(b, random.weighted({1: 0.8, 2: 0.2}), width)
    edged, centred = random.chance(0.7), random.chance(0.85)
    if centred:
        style = random.weighted({"double": 0.35, "dashed": 0.3, "solid": 0.15, "half": 0.2})
        b.paint(left, _divide(random), style, border=True)
    b.lanes.append(Lane(left - width / 2, width, -1))
    b.strips.append(Strip(left - width, left, "against" if centred else "road"))
    paved_left = left - width - random.uniform(0.1, 1.0)
    paved_right = right + random.uniform(0.1, 1.2)
    b.strips += [
        Strip(paved_left, left - width, "shoulder" if edged or centred else "road"),
        Strip(right, paved_right, "shoulder" if edged else "road"),
    ]
    if edged:
        b.paint(left - width, "white", "solid", border=not centred)
        b.paint(right, "white", "solid", border=True)
    else:
        right = paved_right
    if not centred:
        left = left - width if edged else paved_left
    for side, edge in ((-1, paved_left), (1, paved_right)):
        wall = random.weighted({"rail": 0.2, "hedge": 0.15, "fence": 0.15, "": 0.5})
        if wall:
            b.walls.append((edge + side * random.uniform(0.6, 2.5), wall))
    start = random.uniform(15, 90)
    junction = Junction(start, start + random.uniform(5, 9), random.chance(0.4), True) if random.chance(0.25) else None
    return _finish(b, kind, "undefined", left, right, paved_left, paved_right, snow, junction, None)


def _finish(
    b: _Builder,
    kind: str,
    scene: str,
    left: float,
    right: float,
    paved_left: float,
    paved_right: float,
    snow: float,
    junction: Junction | None,
    crossing: float | None,
) -> Plan:
    random = b.random
    town = kind in ("city", "residential")
    for side, edge in ((-1, paved_left), (1, paved_right)):
        near = edge
        if town:
            lawn = random.uniform(0.6, 2.5) if random.chance(0.35 if kind == "city" else 0.6) else 0.0
            walk = random.uniform(1.2, 4.5)
            for size, strip in ((lawn, "verge"), (walk, "pavement")):
                if size:
                    b.strips.append(Strip(min(near, near + side * size), max(near, near + side * size), strip))
                    near += side * size
        rest = "pavement" if kind == "city" and random.chance(0.6) else "verge"
        b.strips.append(Strip(min(near, side * OUTER), max(near, side * OUTER), rest))
        if snow > 0.5 and town:
            b.walls.append((edge + side * 0.6, "snow"))
    strips = tuple(sorted(b.strips, key=lambda strip: strip.left))
    return Plan(
        kind,
        scene,
        left,
        right,
        paved_left,
        paved_right,
        strips,
        tuple(b.lanes),
        tuple(b.lines),
        tuple(b.kerbs),
        tuple(b.walls),
        tuple(b.parking),
        junction,
        crossing,
    )
