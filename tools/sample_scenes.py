"""The streets of the sample data: textures, meshes and layouts, made with numpy from a seed.

World: x right, y ahead, z up, in metres, road surface at z = 0. A `Geo` holds triangles by material name, a
`Street` turns road coordinates (s along the centre line, t to its right) into world coordinates, and
`build(drive)` lays out a whole drive: its fixed parts, its moving cars and the camera's path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray
Rng = np.random.Generator
Colour = tuple[float, float, float]
PALETTE = {  # sRGB colours of the small things; each is a grainy tile of one texture
    "steel": (120, 124, 128),
    "dark": (42, 44, 48),
    "white": (205, 205, 200),
    "red": (176, 38, 34),
    "blue": (40, 72, 140),
    "yellow": (214, 176, 48),
    "green": (48, 92, 58),
    "skin": (196, 150, 120),
    "jeans": (58, 70, 100),
    "beige": (186, 168, 136),
    "brown": (98, 70, 48),
    "teal": (46, 120, 124),
    "violet": (110, 72, 120),
    "orange": (204, 106, 40),
    "stone": (160, 154, 144),
    "tyre": (30, 30, 32),
}
CAR_COLOURS = [
    (158, 162, 166),
    (40, 44, 50),
    (196, 196, 192),
    (122, 28, 30),
    (34, 58, 104),
    (86, 92, 98),
    (52, 84, 72),
    (170, 150, 112),
    (190, 96, 38),
    (60, 106, 150),
]
WALLS = [
    (196, 180, 148),
    (188, 150, 118),
    (168, 96, 74),
    (206, 200, 186),
    (150, 148, 142),
    (186, 164, 92),
    (146, 164, 170),
    (198, 158, 140),
    (132, 78, 62),
    (170, 178, 150),
]


# ---- textures ------------------------------------------------------------------------------------------


def noise(rng: Rng, h: int, w: int, beta: float = 1.0, low: float = 0.0) -> Array:
    """Periodic noise (h, w) of unit deviation, spectrum 1/f^beta, flat below `low` cycles."""
    fy, fx = np.fft.fftfreq(h)[:, None] * h, np.fft.fftfreq(w)[None] * w
    f = np.hypot(fy, fx * max(h, w) / w if w < h else fx)
    gain = np.where(f > 0, 1 / np.maximum(f, max(low, 1)) ** beta, 0)
    n = np.fft.ifft2(np.fft.fft2(rng.standard_normal((h, w))) * gain).real
    return n / n.std()


def tint(colour: Colour, n: Array, amount: float, hue: float = 0.0, rng: Rng | None = None) -> Array:
    """A float sRGB image: colour * (1 + amount * n), with an optional slow drift of hue."""
    img = np.array(colour, float) * (1 + amount * n[..., None])
    if hue and rng is not None:
        img *= 1 + hue * np.stack([noise(rng, n.shape[0], n.shape[1], 1.6) for _ in range(3)], -1)
    return img


def asphalt(rng: Rng, grey: float) -> Array:
    """A 20 m x 20 m tile: grain, slow patches, repaired rectangles, cracks and a few manholes."""
    n = 800
    img = tint((grey, grey, grey * 1.02), 0.5 * noise(rng, n, n, 0.4) + 0.8 * noise(rng, n, n, 1.4), 0.10, 0.02, rng)
    yy, xx = np.mgrid[:n, :n]
    for _ in range(10):  # repairs
        y, x, h, w = rng.integers(0, n), rng.integers(0, n), rng.integers(30, 200), rng.integers(30, 110)
        img[y : y + h, x : x + w] *= rng.choice([rng.uniform(0.68, 0.86), rng.uniform(1.1, 1.25)])
    crack = np.abs(noise(rng, n, n, 1.7)) < 0.018
    img[crack & (noise(rng, n, n, 1.8) > 0.1)] *= 0.62
    for _ in range(3):
        y, x = rng.integers(40, n - 40, 2)
        r = np.hypot(yy - y, xx - x)
        img[r < 14] *= 0.7 + 0.2 * ((yy // 4 + xx // 4) % 2)[r < 14, None]
    return img


def slabs(rng: Rng, colour: Colour) -> Array:
    """A 6 m x 6 m tile of pavement slabs half a metre wide."""
    n, k = 360, 12
    img = tint(colour, 0.5 * noise(rng, n, n, 0.5) + noise(rng, n, n, 1.4), 0.07, 0.02, rng)
    img *= np.kron(rng.uniform(0.82, 1.14, (k, k)), np.ones((n // k, n // k)))[..., None]
    yy, xx = np.mgrid[:n, :n]
    img[((yy % 30) < 2) | (((xx + 15 * (yy // 30 % 2)) % 30) < 2)] *= 0.68
    return img


def facade(rng: Rng, b: House) -> Array:
    """The front of a house, 20 pixels a metre, row 0 on top; the top metre is plain wall."""
    px = 20
    h, w = round((b.floors * b.fh + 1) * px), round(b.bays * b.bw * px)
    img = tint(b.wall, 0.5 * noise(rng, h, w, 0.5) + noise(rng, h, w, 1.5), 0.06, 0.012, rng)
    yy, xx = np.mgrid[:h, :w]
    if b.brick:
        img[(yy % 5 == 0) | ((xx + 5 * (yy // 5 % 2)) % 10 == 0)] *= 0.83
        img *= np.kron(rng.uniform(0.88, 1.1, (h // 5 + 1, w // 10 + 1)), np.ones((5, 10)))[:h, :w, None]
    for fl in range(b.floors):
        base = h - round(fl * b.fh * px)  # image row of this floor's bottom
        img[base - 4 : base - 1] *= 0.84 if fl else 0.7
        for bay in range(b.bays):
            x0, x1, z0, z1 = b.opening(fl, bay)
            c0, c1 = round((bay * b.bw + x0) * px), round((bay * b.bw + x1) * px)
            r0, r1 = base - round(z1 * px), base - round(z0 * px)
            if b.trim:
                img[max(r0 - 5, 0) : r1 + 4, max(c0 - 4, 0) : c1 + 4] = np.array(b.trim) * rng.uniform(0.94, 1.03)
            hh, ww = r1 - r0, c1 - c0
            if z0 == 0 and not b.shop:  # a door
                img[r0:r1, c0:c1] = np.array(b.door) * (0.8 + 0.3 * (np.arange(ww) // 7 % 2))[None, :, None]
                img[r0 + 3 : r0 + 9, c0 + 4 : c1 - 4] = (60, 70, 84)
                continue
            glass = np.linspace(rng.uniform(70, 120), rng.uniform(28, 54), hh)[:, None, None] * (0.9, 1.0, 1.12)
            glass = glass * (1 + 0.12 * noise(rng, hh, ww, 1.3)[..., None])
            if rng.random() < 0.55 and fl:  # curtains or a blind
                cw = max(2, int(ww * rng.uniform(0.12, 0.36)))
                curtain = np.array((190, 184, 170)) * rng.uniform(0.6, 1.0)
                glass[:, :cw] = glass[:, -cw:] = curtain
            elif rng.random() < 0.35:
                glass[: int(hh * rng.uniform(0.2, 0.8))] = np.array((176, 168, 150)) * rng.uniform(0.5, 1.0)
            img[r0:r1, c0:c1] = glass
            img[r0:r1, [c0, c0 + 1, c1 - 2, c1 - 1]] = img[[r0, r0 + 1, r1 - 2, r1 - 1], c0:c1] = b.frame
            img[r0:r1, (c0 + c1) // 2 - 1 : (c0 + c1) // 2 + 1] = b.frame
        if b.shop and fl == 0:  # the shop's sign above its windows
            top = base - round(b.fh * px)
            img[top + 4 : top + 13] = np.array(b.shop) * (1 + 0.06 * rng.standard_normal((9, w, 1)))
            for c in range(int(w * 0.2), int(w * 0.8), 8):
                img[top + 6 : top + 11, c : c + rng.integers(3, 7)] = (224, 218, 204)
    return img


def car_atlas(rng: Rng, colour: Colour, prof: Array, belt: float, length: float) -> Array:
    """A car's paint, 50 pixels a metre: side (rows 0-89), top (90-179), front, rear and wheel (180-269)."""
    w = round(length * 50)
    img = np.ones((270, 300, 3)) * np.array(colour) * (1 + 0.03 * noise(rng, 270, 300, 1.0)[..., None])
    img[:90] *= np.linspace(1.12, 0.82, 90)[:, None, None]
    y = (np.arange(300) + 0.5) / 50 - length / 2
    top = np.interp(y, prof[:, 0], prof[:, 1])
    slope = np.abs(np.gradient(top, y))
    z = (90 - np.arange(90) - 0.5)[:, None] / 50
    roof = top.max()
    window = (z > belt + 0.03) & (z < top[None] - 0.09) & (z < roof - 0.11)
    img[:90][window] = (36, 42, 50)
    img[:90][window & (z > belt + 0.26 + 0.1 * np.sin(y * 9)[None])] = (74, 86, 98)
    for door in (-0.95, 0.12, 1.15):  # door seams, pillars
        c = int((door + length / 2) * 50)
        img[8:66, c : c + 2] *= 0.5
        img[:90, c - 3 : c + 4][window[:, c - 3 : c + 4]] = np.array(colour) * 0.55
    img[46:48, :w] *= 0.7
    img[90 - 20 : 90] *= 0.45
    for wheel in (-0.31, 0.30):
        cy = wheel * length
        img[:90][np.hypot(y[None] - cy, z - 0.32) < 0.40] = (20, 20, 22)
    glass = (top > belt + 0.08) & (top < roof - 0.03) & (slope > 0.25)
    img[98:172][:, glass] = np.linspace(46, 84, 74)[:, None, None] * (0.9, 1.0, 1.1)
    img[90:98] *= 0.8
    img[172:180] *= 0.8
    img[90:180, (np.abs(np.gradient(glass.astype(float))) > 0)] *= 0.6
    for k, lamp in ((0, (226, 224, 210)), (100, (170, 24, 22))):  # the two ends: lamps, plate, bumper
        end = img[180:270, k : k + 90]
        end[30:90] *= 0.62
        end[52:70] = (36, 37, 40)
        end[18:32, 4:22] = end[18:32, 68:86] = lamp
        end[38:46, 31:59] = (214, 210, 188)
        end[20:30, 26:64] *= 0.5 if k == 0 else 0.9
    yy, xx = np.mgrid[-30:30, -30:30] / 30
    r, a = np.hypot(yy, xx), np.arctan2(yy, xx)
    tyre = np.where(
        (r > 0.66)[..., None], (26, 26, 28), (150, 152, 156) * (0.55 + 0.45 * (np.cos(5 * a) > -0.3))[..., None]
    )
    img[180:240, 200:260] = np.where((r < 0.14)[..., None], (60, 60, 62), tyre)
    img[240:270, 200:260] = (30, 30, 32) * (1 + 0.2 * rng.standard_normal((30, 60, 1)))
    return img


def textures(rng: Rng) -> dict[str, Array]:
    """The materials every drive has, as float sRGB images."""

    def leaf(colour: Colour) -> Array:
        n = 0.6 * noise(rng, 256, 256, 0.7, 10) + 0.6 * noise(rng, 256, 256, 1.2)
        return tint(colour, n, 0.34, 0.05, rng)

    tiles = noise(rng, 240, 240, 0.8)
    yy = np.arange(240)
    roofs = {}
    for i, c in enumerate([(140, 72, 54), (88, 84, 84), (120, 92, 74)]):
        r = tint(c, tiles, 0.1, 0.04, rng) * np.kron(rng.uniform(0.84, 1.14, (15, 20)), np.ones((16, 12)))[..., None]
        r[yy % 16 < 3] *= 0.62
        roofs[f"roof{i}"] = r
    pal = np.zeros((128, 128, 3))
    for i, c in enumerate(PALETTE.values()):
        y, x = divmod(i, 4)
        pal[y * 32 : y * 32 + 32, x * 32 : x * 32 + 32] = tint(c, noise(rng, 32, 32, 0.8), 0.08)
    boards = tint((126, 98, 70), noise(rng, 128, 128, 1.0), 0.14, 0.05, rng)
    boards *= (np.where(np.arange(128) % 16 < 2, 0.5, 1) * np.repeat(rng.uniform(0.8, 1.15, 8), 16))[None, :, None]
    season = rng.uniform(-1, 1)
    grass = tint(
        (104 + 14 * season, 112, 62), 0.6 * noise(rng, 512, 512, 0.5) + noise(rng, 512, 512, 1.3), 0.17, 0.05, rng
    )
    field_ = tint((160, 146, 88), 0.6 * noise(rng, 256, 256, 0.6) + noise(rng, 256, 256, 1.2), 0.13, 0.04, rng)
    field_ *= (1 + 0.16 * np.sin(np.arange(256) * 2 * np.pi / 16))[None, :, None]
    hill = tint((104, 124, 104), noise(rng, 512, 512, 1.0), 0.16, 0.05, rng)
    paint = tint((196, 196, 190), noise(rng, 128, 128, 0.9), 0.10)
    return {
        "asphalt": asphalt(rng, rng.uniform(92, 122)),
        "pave": slabs(rng, (156, 152, 146)),
        "cobble": slabs(rng, (150, 132, 118)),
        "grass": grass,
        "field": field_,
        "hill": hill,
        "leaf0": leaf((84, 104, 50)),
        "leaf1": leaf((66, 92, 54)),
        "leaf2": leaf((112, 116, 50)),
        "leaf3": leaf((52, 78, 52)),
        "hedge": leaf((70, 94, 50)),
        "palette": pal,
        "boards": boards,
        "paint": paint,
        "bark": tint((104, 86, 68), noise(rng, 128, 128, 0.8), 0.25),
        **roofs,
    }


# ---- meshes --------------------------------------------------------------------------------------------


class Geo:
    """Triangles by material: lists of (vertices, faces, texture coordinates)."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[Array, Array, Array]]] = defaultdict(list)

    def grid(self, mat: str, p: Array, uv: Array) -> None:
        """A lofted sheet: p (n, m, 3) with uv (n, m, 2)."""
        n, m = p.shape[:2]
        i = np.arange(n * m).reshape(n, m)
        a, b, c, d = i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]
        faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
        self.parts[mat].append((p.reshape(-1, 3).astype(float), faces, np.broadcast_to(uv, (n, m, 2)).reshape(-1, 2)))

    def quads(self, mat: str, p: Array, uv: Array) -> None:
        """Separate quads: p (k, 4, 3), uv (k, 4, 2)."""
        i = np.arange(len(p) * 4).reshape(-1, 4)
        self.parts[mat].append((p.reshape(-1, 3), np.concatenate([i[:, :3], i[:, [0, 2, 3]]]), uv.reshape(-1, 2)))

    def box(self, mat: str, x: tuple, y: tuple, z: tuple, scale: float = 1.0, colour: str = "") -> None:
        """A box; texture coordinates are metres / scale, or a palette tile."""
        c = np.array([[x[i], y[j], z[k]] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
        p = c[np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [1, 3, 7, 5], [0, 2, 6, 4]])]
        uv = (
            np.stack(
                [
                    np.where(np.arange(6)[:, None] < 2, p[..., 1], p[..., 0]),
                    np.where(np.arange(6)[:, None] < 4, -p[..., 2], p[..., 1]),
                ],
                -1,
            )
            / scale
        )
        self.quads(mat, p, swatch(colour, uv) if colour else uv)

    def tube(self, mat: str, a: ArrayLike, b: ArrayLike, ra: float, rb: float, colour: str = "", n: int = 8) -> None:
        """A tapered cylinder from a to b with both ends closed."""
        a, b = np.asarray(a, float), np.asarray(b, float)
        axis = (b - a) / np.linalg.norm(b - a)
        e = np.cross(axis, (1, 0, 0) if abs(axis[0]) < 0.8 else (0, 1, 0))
        e /= np.linalg.norm(e)
        ang = np.linspace(0, 2 * np.pi, n + 1)
        ring = np.cos(ang)[:, None] * e + np.sin(ang)[:, None] * np.cross(axis, e)
        p = np.stack([a + 0 * ring, a + ra * ring, b + rb * ring, b + 0 * ring])
        length = np.linalg.norm(b - a)
        uv = np.stack(np.broadcast_arrays(ang[None] / 6.3, np.array([0, 0, length, length])[:, None]), -1)
        self.grid(mat, p, swatch(colour, uv) if colour else uv)

    def blob(self, mat: str, rng: Rng, c: ArrayLike, r: ArrayLike, rough: float, colour: str = "", n: int = 9) -> None:
        """A noise-displaced ellipsoid."""
        th, ph = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n - 3), indexing="ij")
        k = rng.uniform(1.5, 4, (3, 3))
        d = np.stack([np.sin(th) * np.cos(ph), np.sin(th) * np.sin(ph), np.cos(th)], -1)
        bump = np.sin(d @ k * 1.7 + rng.uniform(0, 6, 3)).sum(-1) / 3 + 0.6 * rng.uniform(-1, 1, th.shape)
        bump[0], bump[-1] = bump[0, 0], bump[-1, 0]
        bump[:, -1] = bump[:, 0]
        uv = np.stack([ph / 6.283 * 2, th / 3.14], -1) * max(1, np.max(r) * 0.8) + rng.uniform(0, 1, 2)
        if colour:
            uv = swatch(colour, uv)
        self.grid(mat, np.asarray(c) + d * np.asarray(r) * (1 + rough * bump[..., None]), uv)

    def put(self, other: Geo, pos: ArrayLike, psi: float = 0.0, size: float = 1.0) -> None:
        """Adds another Geo, turned by psi (anticlockwise seen from above) and moved to pos."""
        c, s = np.cos(psi), np.sin(psi)
        rot = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) * size
        for mat, items in other.parts.items():
            self.parts[mat] += [(v @ rot + np.asarray(pos, float), f, uv) for v, f, uv in items]

    def merged(self) -> dict[str, tuple[Array, Array, Array]]:
        """One (vertices, faces, uv) for each material."""
        out = {}
        for mat, items in self.parts.items():
            start = np.cumsum([0] + [len(v) for v, _, _ in items])
            out[mat] = (
                np.concatenate([v for v, _, _ in items]),
                np.concatenate([f + o for (_, f, _), o in zip(items, start, strict=False)]),
                np.concatenate([uv for _, _, uv in items]),
            )
        return out


def swatch(colour: str, uv: Array) -> Array:
    """Texture coordinates inside one tile of the palette."""
    row, col = divmod(list(PALETTE).index(colour), 4)
    u = 0.2 + 0.6 * (uv * 0.5 % 1.0)
    return (u + np.array([col, row])) / 4


# ---- things in a street --------------------------------------------------------------------------------


@dataclass
class House:
    """One house: its front is `bays` windows wide and `floors` high, the street lies at its -y side."""

    bays: int
    floors: int
    bw: float
    fh: float
    depth: float
    wall: tuple
    brick: bool = False
    trim: tuple | None = None
    frame: tuple = (206, 202, 194)
    door: tuple = (90, 60, 44)
    shop: tuple | None = None
    door_bay: int = 0
    pitched: bool = True
    roof: str = "roof0"

    def opening(self, floor: int, bay: int) -> tuple[float, float, float, float]:
        """The window or door of a cell: x0, x1, z0, z1 in the cell."""
        if floor == 0 and self.shop:
            return 0.2, self.bw - 0.2, 0.0 if bay == self.door_bay else 0.45, self.fh - 0.8
        if floor == 0 and bay == self.door_bay:
            return self.bw / 2 - 0.55, self.bw / 2 + 0.55, 0.0, 2.15
        half = min(0.62, self.bw * 0.28)
        return self.bw / 2 - half, self.bw / 2 + half, 0.9, self.fh - 0.45

    def mesh(self, tex: str, rng: Rng) -> Geo:
        """The house with x from -width/2, its front at y = 0 with recessed windows."""
        g, w, h = Geo(), self.bays * self.bw, self.floors * self.fh + 0.5
        tall = self.floors * self.fh + 1

        def uv(p: Array, across: Array) -> Array:
            return np.stack([across / w, 1 - p[..., 2] / tall], -1)

        for fl in range(self.floors):
            for bay in range(self.bays):
                x0, x1, z0, z1 = self.opening(fl, bay)
                xs = np.array([0, x0, x1, self.bw]) + bay * self.bw
                zs = np.array([0, z0, z1, self.fh]) + fl * self.fh
                p = np.stack([*np.meshgrid(xs, 0.0, zs, indexing="ij")], -1)[:, 0]
                cell = np.array(
                    [
                        [p[i, j], p[i + 1, j], p[i + 1, j + 1], p[i, j + 1]]
                        for i in range(3)
                        for j in range(3)
                        if (i, j) != (1, 1)
                    ]
                )
                hole = np.array([p[1, 1], p[2, 1], p[2, 2], p[1, 2]])
                back = hole + np.array([0, 0.18, 0])
                reveal = np.array([[hole[k], hole[k - 1], back[k - 1], back[k]] for k in range(4)])
                q = np.concatenate([cell, back[None], reveal])
                g.quads(tex, q - (w / 2, 0, 0), uv(q, q[..., 0]))
                if z0 > 0 and fl:
                    cx = (x0 + x1) / 2 + bay * self.bw - w / 2
                    g.box(
                        "palette",
                        (cx - 0.75, cx + 0.75),
                        (-0.12, 0),
                        (fl * self.fh + z0 - 0.12, fl * self.fh + z0),
                        colour="stone",
                    )
        low, d = self.floors * self.fh, self.depth
        top = np.array([[[0, 0, low], [w, 0, low], [w, 0, h], [0, 0, h]]], float)
        g.quads(tex, top - (w / 2, 0, 0), uv(top, top[..., 0]))
        for x in (-w / 2, w / 2):
            side = np.array([[[x, 0, 0], [x, d, 0], [x, d, h], [x, 0, h]]], float)
            g.quads(tex, side, uv(side, side[..., 1] / self.bw // 1 * self.bw + w * (side[..., 1] > 0)))
        back = np.array([[[-w / 2, d, 0], [w / 2, d, 0], [w / 2, d, h], [-w / 2, d, h]]], float)
        g.quads(tex, back, uv(back, back[..., 0]))
        plain = np.array([0.02, 0.02])
        if self.pitched:
            o, rise = 0.45, d * rng.uniform(0.32, 0.5)
            ridge = h + rise
            k = o * rise / (d / 2)
            for y0, y1 in ((-o, d / 2), (d + o, d / 2)):
                p = np.array(
                    [
                        [
                            [-w / 2 - 0.25, y0, h - k],
                            [w / 2 + 0.25, y0, h - k],
                            [w / 2 + 0.25, y1, ridge],
                            [-w / 2 - 0.25, y1, ridge],
                        ]
                    ]
                )
                g.quads(self.roof, p, np.array([[[0, 0], [w / 4, 0], [w / 4, -2.2], [0, -2.2]]], float))
            for x in (-w / 2, w / 2):
                p = np.array([[[x, 0, h], [x, d, h], [x, d / 2, ridge], [x, d / 2, ridge]]])
                g.quads(tex, p, plain + np.stack([p[..., 1] / w, (p[..., 2] - h) * 0.2 / tall], -1) * 0.5)
            g.box("palette", (-w / 2, w / 2), (-o - 0.1, -o + 0.04), (h - k - 0.08, h - k + 0.08), colour="steel")
            x = rng.uniform(-w / 3, w / 3)
            g.box("roof0", (x, x + 0.7), (d / 2 + 0.3, d / 2 + 1.1), (h, ridge + 0.9), 4.0)
            if w > 8 and rise > 2.5:
                for x in np.arange(-w / 2 + 2, w / 2 - 1.5, 3.6):
                    z = h + 0.35 * rise
                    g.box("palette", (x - 0.7, x + 0.7), (d * 0.17 - 0.5, d * 0.4), (z - 0.7, z + 1.1), colour="stone")
                    g.box("palette", (x - 0.5, x + 0.5), (d * 0.17 - 0.52, d * 0.17), (z - 0.3, z + 0.8), colour="dark")
        else:
            p = np.array([[[-w / 2, 0, h], [w / 2, 0, h], [w / 2, d, h], [-w / 2, d, h]]])
            g.quads("cobble", p, p[..., :2] / 6)
            g.box("palette", (-w / 2 - 0.1, w / 2 + 0.1), (-0.3, 0.12), (h - 0.3, h + 0.1), colour="stone")
            g.box("palette", (-w / 4, -w / 4 + 2.0), (d * 0.4, d * 0.4 + 2.5), (h, h + 2.0), colour="stone")
        if rng.random() < 0.5 and self.floors > 2:  # balconies
            for fl in range(1, self.floors):
                x = (self.door_bay + 0.5) * self.bw - w / 2
                z = fl * self.fh + 0.3
                g.box("palette", (x - 1.1, x + 1.1), (-0.9, 0), (z - 0.15, z), colour="stone")
                g.box("palette", (x - 1.1, x + 1.1), (-0.93, -0.88), (z, z + 0.9), colour="dark" if fl % 2 else "stone")
        if self.shop and rng.random() < 0.6:  # an awning
            p = np.array(
                [
                    [
                        [-w / 2 + 0.3, 0, self.fh - 0.65],
                        [w / 2 - 0.3, 0, self.fh - 0.65],
                        [w / 2 - 0.3, -1.2, self.fh - 1.05],
                        [-w / 2 + 0.3, -1.2, self.fh - 1.05],
                    ]
                ]
            )
            colour = str(rng.choice(["red", "green", "blue", "beige", "orange"]))
            g.quads("palette", p, swatch(colour, p[..., :2]))
        return g


def random_house(rng: Rng, kind: str) -> House:
    """A town house, a detached house or a shop building."""
    pale = tuple(int(v) for v in rng.uniform(176, 214) * np.array([1, 0.98, 0.94]))
    base = np.array(WALLS[rng.integers(len(WALLS))], float)
    wall = tuple((0.75 * base + 0.25 * base.mean()) * rng.uniform(0.88, 1.08))
    h = House(
        bays=int(rng.integers(3, 7)),
        floors=int(rng.integers(3, 6)),
        bw=rng.uniform(2.3, 3.2),
        fh=rng.uniform(2.9, 3.5),
        depth=rng.uniform(10, 13),
        wall=wall,
        brick=bool(rng.random() < 0.35),
        trim=pale if rng.random() < 0.6 else None,
        pitched=bool(rng.random() < 0.55),
        door=tuple(int(v) for v in rng.uniform(40, 120, 3)),
        roof=f"roof{rng.integers(3)}",
    )
    if kind == "home":
        h.bays, h.floors = int(rng.integers(3, 5)), int(rng.integers(1, 3))
        h.depth, h.pitched = rng.uniform(7, 9.5), True
        h.fh = rng.uniform(2.6, 2.9)
    elif rng.random() < 0.45:
        h.shop, h.fh = tuple(int(v) for v in rng.uniform(40, 150, 3)), h.fh + 0.3
    h.door_bay = int(rng.integers(h.bays))
    return h


CARS = {  # the roof line from the tail (y < 0) to the nose, the belt line, half the width
    "saloon": (
        [
            (-2.25, 0.82),
            (-2.2, 0.98),
            (-1.6, 1.02),
            (-0.85, 1.40),
            (-0.3, 1.45),
            (0.2, 1.42),
            (1.05, 0.98),
            (1.7, 0.90),
            (2.15, 0.74),
            (2.25, 0.62),
        ],
        0.93,
        0.87,
    ),
    "hatch": (
        [
            (-1.95, 0.88),
            (-1.93, 1.02),
            (-1.55, 1.42),
            (-0.9, 1.50),
            (0.1, 1.47),
            (1.0, 1.0),
            (1.6, 0.91),
            (1.9, 0.76),
            (1.98, 0.62),
        ],
        0.94,
        0.85,
    ),
    "estate": (
        [
            (-2.3, 0.9),
            (-2.27, 1.05),
            (-1.95, 1.44),
            (-1.0, 1.52),
            (0.2, 1.48),
            (1.08, 1.0),
            (1.75, 0.92),
            (2.2, 0.76),
            (2.3, 0.62),
        ],
        0.95,
        0.89,
    ),
    "van": (
        [
            (-2.45, 1.9),
            (-2.4, 2.02),
            (-1.5, 2.08),
            (0.7, 2.05),
            (1.0, 1.95),
            (1.75, 1.2),
            (2.25, 1.02),
            (2.42, 0.85),
            (2.45, 0.7),
        ],
        1.2,
        0.96,
    ),
}


def car(rng: Rng, tex: dict[str, Array], name: str, model: str = "") -> Geo:
    """A car, nose towards +y, standing on z = 0; its paint goes to tex[name]."""
    model = model or str(rng.choice(list(CARS), p=[0.32, 0.36, 0.24, 0.08]))
    shape, belt, half = CARS[model]
    prof = np.array(shape)
    length = prof[-1, 0] - prof[0, 0]
    tex[name] = car_atlas(rng, CAR_COLOURS[rng.integers(len(CAR_COLOURS))], prof, belt, length)
    g = Geo()
    y = np.unique(np.concatenate([prof[:, 0], np.linspace(prof[0, 0], prof[-1, 0], 28)]))
    top = np.interp(y, prof[:, 0], prof[:, 1])
    inset = length / 2 - np.abs(y - prof[[0, -1], 0].mean())  # the body narrows at both ends
    end = np.minimum(1, 0.86 + 0.14 * np.sqrt(np.minimum(1, inset / 0.5)))
    hw, mid = half * end, np.minimum(belt, top - 0.02)
    bot = 0.26 + 0.1 * (np.abs(y) > length / 2 - 0.3)
    rows = np.stack([bot, (bot + mid) / 2, mid, top - 0.04], 1)
    wide = np.stack([hw * 0.95, hw, hw * 0.985, hw * (1 - 0.24 * np.clip((top - mid) / 0.5, 0, 1))], 1)
    size = np.array([300, 270])
    for side in (-1, 1):
        p = np.stack([side * wide, np.repeat(y[:, None], 4, 1), rows], -1)
        g.grid(name, p, np.stack([(p[..., 1] + length / 2) * 50, 90 - p[..., 2] * 43], -1) / size)
    across = np.array([-1, -0.92, 0, 0.92, 1])
    lift = np.array([0, 0.034, 0.055, 0.034, 0])
    p = np.stack([wide[:, 3:] * across, np.repeat(y[:, None], 5, 1), top[:, None] - 0.04 + lift], -1)
    g.grid(
        name, p, np.stack([(p[..., 1] + length / 2) * 50, 135 + 43 * np.broadcast_to(across, p.shape[:2])], -1) / size
    )
    for i, k in ((-1, 0), (0, 100)):
        a = np.stack([-wide[i], np.full(4, y[i]), rows[i]], -1)
        p = np.stack([a, a * (-1, 1, 1)])
        v = 264 - 80 * (rows[i] - bot[i]) / (rows[i, -1] - bot[i])
        g.grid(name, p, np.stack([np.array([[k + 2] * 4, [k + 88] * 4]), np.stack([v, v])], -1) / size)
    dark = np.array([230, 255]) / size
    g.box(name, (-half * 0.9, half * 0.9), (y[0] + 0.1, y[-1] - 0.1), (0.24, 0.3))
    v, f, _ = g.parts[name][-1]
    g.parts[name][-1] = (v, f, np.tile(dark, (len(v), 1)))
    ang = np.linspace(0, 2 * np.pi, 19)
    for sx in (-1, 1):
        for cy in (-0.31 * length, 0.30 * length):
            r = np.array([0, 0.318, 0.318])[:, None]
            x = np.array([half + 0.01, half + 0.01, half - 0.22])[:, None] * sx
            p = np.stack(np.broadcast_arrays(x, cy + r * np.cos(ang), 0.32 + r * np.sin(ang)), -1)
            uv = np.stack([230 + 29 * r / 0.318 * np.cos(ang), 210 + 29 * r / 0.318 * np.sin(ang)], -1)
            g.grid(name, p, uv / size)
        g.box(
            "palette",
            (sx * half - 0.02 * sx, sx * (half + 0.16)),
            (0.72, 0.84),
            (belt + 0.02, belt + 0.16),
            colour="dark",
        )
    return g


def tree(rng: Rng, height: float, leaf: str, conifer: bool = False) -> Geo:
    """A tree: trunk, branches, and a crown of rough clumps with loose leaves around them."""
    g = Geo()
    trunk = height * rng.uniform(0.28, 0.4)
    r0 = 0.045 * height**0.8
    g.tube("bark", (0, 0, -0.3), (0, 0, trunk * 1.5), r0, r0 * 0.6)
    centres: list[tuple[ArrayLike, ArrayLike]] = []
    if conifer:
        for k in np.linspace(0.16, 0.95, 9):
            r = height * 0.24 * (1 - k) + 0.15
            centres.append(((*rng.normal(0, 0.06, 2), height * k), (r, r, height * 0.085)))
    else:
        spread = height * rng.uniform(0.2, 0.28)
        for _ in range(13):
            a, q = rng.uniform(0, 6.283), np.sqrt(rng.uniform(0.05, 1))
            z = rng.uniform(trunk, height * 0.9)
            q *= np.sqrt(max(0.15, 1 - ((z - height * 0.62) / (height * 0.42)) ** 2))
            c = np.array([spread * q * np.cos(a), spread * q * np.sin(a), z])
            r = height * rng.uniform(0.11, 0.17)
            centres.append((c, (r, r, r * 0.8)))
            if z < height * 0.7:
                g.tube("bark", (0, 0, trunk * 0.9), c, r0 * 0.35, r0 * 0.1, n=5)
    for mid, radius in centres:
        g.blob(leaf, rng, mid, radius, 0.2)
        n = 70
        d = rng.standard_normal((n, 3))
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        p = np.asarray(mid) + d * np.asarray(radius) * rng.uniform(0.95, 1.28, (n, 1))
        e, f = rng.standard_normal((2, n, 3)) * height * 0.016
        uv = rng.uniform(0, 1, (n, 1, 2)) + np.array([[0, 0], [0.1, 0], [0.1, 0.1], [0, 0.1]])
        g.quads(leaf, np.stack([p - e, p - f, p + e, p + f], 1), uv)
    return g


def person(rng: Rng) -> Geo:
    """A walking figure of 1.6 to 1.9 m, looking along +y."""
    g, k = Geo(), rng.uniform(0.92, 1.06)
    legs, coat = (
        rng.choice(["jeans", "dark", "brown", "beige"]),
        rng.choice(["red", "blue", "green", "teal", "violet", "orange", "white", "dark", "yellow"]),
    )
    step = rng.uniform(0.1, 0.32)
    for s in (-1, 1):
        g.tube("palette", (s * 0.1, s * step, 0.04), (s * 0.09, 0, 0.86), 0.07, 0.1, str(legs))
        g.box("palette", (s * 0.1 - 0.06, s * 0.1 + 0.06), (s * step - 0.08, s * step + 0.17), (0, 0.09), colour="dark")
        g.tube("palette", (s * 0.25, 0, 1.42), (s * 0.29, -s * step * 0.7, 0.88), 0.06, 0.045, str(coat))
    g.blob("palette", rng, (0, 0, 1.14), (0.23, 0.16, 0.38), 0.02, str(coat))
    g.tube("palette", (0, 0, 1.42), (0, 0, 1.56), 0.06, 0.06, "skin")
    g.blob("palette", rng, (0, 0.01, 1.64), (0.1, 0.12, 0.14), 0.02, "skin", 7)
    g.blob("palette", rng, (0, -0.025, 1.69), (0.11, 0.12, 0.12), 0.03, str(rng.choice(["brown", "dark", "beige"])), 7)
    out = Geo()
    out.put(g, (0, 0, 0), 0, k)
    return out


def lamp(height: float, arm: float) -> Geo:
    """A lamp post with its arm towards +x."""
    g = Geo()
    g.tube("palette", (0, 0, 0), (0, 0, 1), 0.11, 0.1, "steel")
    g.tube("palette", (0, 0, 1), (0, 0, height), 0.075, 0.05, "steel")
    g.tube("palette", (0, 0, height), (arm, 0, height + 0.25), 0.045, 0.035, "steel")
    g.box("palette", (arm - 0.15, arm + 0.55), (-0.14, 0.14), (height + 0.18, height + 0.32), colour="stone")
    return g


def sign(rng: Rng) -> Geo:
    """A traffic sign facing -y."""
    g, z = Geo(), rng.uniform(2.1, 2.5)
    g.tube("palette", (0, 0.04, 0), (0, 0.04, z + 0.3), 0.035, 0.035, "steel")
    shape = rng.integers(3)
    n, outer, inner = ((24, "red", "white"), (3, "red", "white"), (4, "blue", "white"))[shape]
    ang = np.linspace(0, 2 * np.pi, n + 1) + (np.pi / 2 if n == 3 else np.pi / 4)
    for k, (r, c) in enumerate(
        ((0.36, outer), (0.26 if shape < 2 else 0.3, inner if shape < 2 else "blue"), (0.1, "dark"))
    ):
        ring = np.stack([r * np.cos(ang), 0 * ang - 0.012 * k, z + r * np.sin(ang)], -1)
        p = np.stack([ring, ring * 0 + (0, -0.012 * k, z)])
        g.grid("palette", p, swatch(c, p[..., [0, 2]]))
    return g


def bin_(colour: str) -> Geo:
    """A wheeled bin."""
    g = Geo()
    g.box("palette", (-0.28, 0.28), (-0.3, 0.3), (0.06, 1.0), colour=colour)
    g.box("palette", (-0.32, 0.32), (-0.34, 0.34), (1.0, 1.08), colour="dark")
    g.box("palette", (-0.3, 0.3), (0.2, 0.34), (0, 0.18), colour="tyre")
    return g


def hedge(rng: Rng, length: float, height: float, width: float = 0.8) -> Geo:
    """A hedge along y from 0 to length."""
    g, n = Geo(), max(2, int(length / 0.25))
    y = np.linspace(0, length, n + 1)
    prof = np.array(
        [
            (-0.5, 0),
            (-0.52, 0.35),
            (-0.5, 0.7),
            (-0.42, 0.95),
            (0, 1.02),
            (0.42, 0.95),
            (0.5, 0.7),
            (0.52, 0.35),
            (0.5, 0),
        ]
    )
    p = np.stack(
        [
            np.broadcast_to(prof[:, 0] * width, (n + 1, 9)),
            np.repeat(y[:, None], 9, 1),
            np.broadcast_to(prof[:, 1] * height, (n + 1, 9)),
        ],
        -1,
    )
    p = p + rng.uniform(-0.07, 0.07, p.shape) * (p[..., 2:] > 0)
    uv = np.stack(np.broadcast_arrays(y[:, None] / 1.6, np.linspace(0, 2.4, 9)[None]), -1)
    g.grid("hedge", p, uv)
    for i in (0, -1):
        g.grid("hedge", np.stack([p[i], p[i] * (0, 1, 0) + (0, 0, 0.3)]), np.stack([uv[i], uv[i] + 0.4]))
    return g


def fence(rng: Rng, length: float, boards: bool) -> Geo:
    """A board fence or one of posts and rails, along y from 0 to length."""
    g = Geo()
    for y in np.arange(0, length, 2.0):
        g.box("bark", (-0.06, 0.06), (y - 0.06, y + 0.06), (0, 1.3 if boards else 1.15), 1.0)
    if boards:
        g.box("boards", (-0.03, 0.03), (0, length), (0.08, 1.2), 1.2)
    else:
        for z in (0.4, 0.72, 1.02):
            g.box("bark", (-0.03, 0.03), (0, length), (z - 0.06, z + 0.06), 1.0)
    return g


# ---- streets -------------------------------------------------------------------------------------------


class Street:
    """A road along a curved centre line: heading psi(s), positions at(s, t, z)."""

    def __init__(
        self,
        origin: tuple,
        psi: float,
        s0: float,
        s1: float,
        width: float,
        pave: float,
        curve: Callable[[Array], Array] = lambda s: 0 * s,
    ) -> None:
        self.s = np.arange(s0, s1 + 1.0, 2.0)
        self.width, self.pave = width, pave
        kappa = curve(self.s)
        self.psi_ = np.concatenate([[0], np.cumsum(kappa[1:] + kappa[:-1])])
        self.psi_ += psi - np.interp(0, self.s, self.psi_)
        mid = (self.psi_[1:] + self.psi_[:-1]) / 2
        self.xy = np.concatenate([[[0, 0]], np.cumsum(2 * np.stack([-np.sin(mid), np.cos(mid)], 1), 0)])
        self.xy += np.array(origin) - [np.interp(0, self.s, self.xy[:, k]) for k in (0, 1)]
        self.gaps: list[tuple[int, float, float, float]] = []  # side, s, half for pavements, half for houses

    def psi(self, s: ArrayLike) -> Any:
        return np.interp(np.asarray(s), self.s, self.psi_)

    def at(self, s: ArrayLike, t: ArrayLike = 0.0, z: ArrayLike = 0.0) -> Array:
        """World points; scalars or arrays that broadcast."""
        s, t, z = np.broadcast_arrays(np.asarray(s, float), t, z)
        x, y = (np.interp(s, self.s, self.xy[:, k]) for k in (0, 1))
        psi = self.psi(s)
        return np.stack([x + t * np.cos(psi), y + t * np.sin(psi), z], -1)

    def free(self, side: int, s: float, houses: bool = False, pad: float = 0.0) -> bool:
        """Whether s on this side (-1 left, 1 right) is clear of every side road."""
        return all(g[0] != side or abs(s - g[1]) >= g[3 if houses else 2] + pad for g in self.gaps)

    def strip(self, g: Geo, mat: str, s0: float, s1: float, t: tuple, z: tuple, scale: float) -> None:
        """A ribbon between two offsets t with heights z."""
        s = np.linspace(s0, s1, max(2, int(np.ceil((s1 - s0) / 2)) + 1))
        p = self.at(s[:, None], np.array(t, float)[None], np.array(z, float)[None])
        across = np.array([0, np.hypot(t[1] - t[0], z[1] - z[0])])[None] + t[0]
        g.grid(mat, p, np.stack(np.broadcast_arrays(across, s[:, None]), -1) / scale)

    def runs(self, side: int, s0: float, s1: float) -> list[tuple[float, float]]:
        """The pieces of pavement on one side, between the side roads."""
        cuts, a = sorted((x[1] - x[2], x[1] + x[2]) for x in self.gaps if x[0] == side), s0
        out = []
        for lo, hi in cuts:
            if lo > a:
                out.append((a, min(lo, s1)))
            a = max(a, hi)
        return out + ([(a, s1)] if a < s1 else [])

    def surface(self, g: Geo, z: float, mat: str, lane: str) -> None:
        """Carriageway, kerbs, pavements and marks (lane: 'dash', 'edge', 'wide' or '')."""
        s0, s1, h = self.s[0], self.s[-1], self.width / 2
        self.strip(g, "asphalt", s0, s1, (-h, h), (z, z), 20.0)
        for side in (-1, 1):
            for a, b in self.runs(side, s0, s1) if self.pave else ():
                out = h + self.pave
                self.strip(g, "palette", a, b, (side * h, side * h), (z, 0.12), 1e9)
                v, f, _ = g.parts["palette"][-1]
                g.parts["palette"][-1] = (v, f, swatch("stone", v[:, :2] * 0.3))
                self.strip(g, "cobble", a, b, (side * h, side * (h + 0.25)), (0.12, 0.125), 3.0)
                self.strip(g, mat, a, b, (side * (h + 0.25), side * out), (0.125, 0.14), 6.0)
                self.strip(g, mat, a, b, (side * out, side * (out + 0.02)), (0.14, -0.05), 6.0)
                for e in (a, b):
                    q = self.at(np.full(4, e), side * np.array([h, out, out, h]), np.array([z, z, 0.135, 0.125]))
                    g.quads("palette", q[None], swatch("stone", q[None, :, :2]))
        if not lane:
            return
        marks = [(0.0, 0.07, 3.0, 6.0)]  # offset, half width, length, gap
        if lane == "wide":
            marks = [(0.0, 0.09, 1e4, 0.0), (-h / 2, 0.07, 3.0, 6.0), (h / 2, 0.07, 3.0, 6.0)]
        if lane == "edge":
            marks += [(-h + 0.25, 0.07, 1e4, 0.0), (h - 0.25, 0.07, 1e4, 0.0)]
        for t, half, on, off in marks:
            for a in np.arange(s0, s1, on + off):
                if all(abs(a + on / 2 - x[1]) > x[2] + 3 for x in self.gaps) or on > 1e3:
                    self.strip(g, "paint", a, min(a + on, s1), (t - half, t + half), (z + 0.008, z + 0.008), 1.0)


@dataclass
class World:
    """A drive, laid out: what stands still, what moves (mesh, street, s, metres a frame, t), the camera."""

    geo: Geo = field(default_factory=Geo)
    tex: dict[str, Array] = field(default_factory=dict)
    movers: list[tuple[Geo, Street, float, float, float]] = field(default_factory=list)
    camera: Callable[[int], tuple[Array, float]] = lambda i: (np.zeros(3), 0.0)

    def moving(self, frame: int) -> Geo:
        """The moving cars as they stand at a frame."""
        g = Geo()
        for mesh, street, s, v, t in self.movers:
            a = s + v * frame
            if street.s[0] < a < street.s[-1]:
                g.put(mesh, street.at(a, t), street.psi(a) + (np.pi if v < 0 else 0))
        return g


def terrain(w: World, rng: Rng, streets: list[Street], ground: str, hills: float, near: float) -> Callable:
    """Ground out to the horizon: level near the streets, then rising to wooded hills; returns its height."""
    axis = np.concatenate([np.arange(-300, 300, 8.0), np.geomspace(300, 3000, 18)])
    axis = np.unique(np.concatenate([-np.geomspace(300, 3000, 18), axis]))
    pts = np.concatenate([s.at(s.s)[:, :2] for s in streets])[::3]
    hm = noise(rng, 256, 256, 2.0)

    def height(xy: Array) -> Array:
        d = np.concatenate([np.sqrt(((c[:, None] - pts[None]) ** 2).sum(-1)).min(1) for c in np.array_split(xy, 40)])
        q = (xy / 12).astype(int) % 256
        rise = np.clip((d - near) / 350, 0, 1) ** 1.5
        foot = (d > near) * hills * 0.012 * np.clip(d - near, 0, 60) / 10
        return -0.04 + hills * rise * (1.1 + 0.45 * hm[q[:, 1], q[:, 0]]) + foot

    xx, yy = np.meshgrid(axis, axis + 120, indexing="ij")
    xy = np.stack([xx, yy], -1).reshape(-1, 2)
    z = height(xy).reshape(xx.shape)
    p = np.stack([xx, yy, z], -1)
    core = slice(15, len(axis) - 15)
    w.geo.grid(ground, p[core, core], p[core, core][..., :2] / 7)
    p[core, core][3:-3, 3:-3, 2] -= 3.0  # the far sheet dips under the near one
    w.geo.grid("hill", p, p[..., :2] / 260)
    return lambda x, y: float(height(np.array([[x, y]]))[0])


def houses(
    w: World,
    rng: Rng,
    st: Street,
    side: int,
    s0: float,
    s1: float,
    setback: float,
    kind: str,
    space: tuple[float, float],
) -> list[tuple[float, float]]:
    """A row of houses along one side; returns the (s, width) of each."""
    s, out = s0, []
    while s < s1:
        h = random_house(rng, kind)
        width = h.bays * h.bw
        mid = s + width / 2
        if not all(st.free(side, q, True) for q in (s, mid, s + width)):
            s += 1.0
            continue
        name = f"house{sum(k.startswith('house') for k in w.tex)}"
        w.tex[name] = facade(rng, h)
        back = setback + (rng.uniform(0, 2.5) if kind == "home" else 0)
        pos = st.at(mid, side * (st.width / 2 + st.pave + back))
        w.geo.put(h.mesh(name, rng), pos, float(st.psi(mid)) - side * np.pi / 2)
        out.append((mid, width))
        s += width + rng.uniform(*space)
    return out


def parked(w: World, rng: Rng, st: Street, side: int, s0: float, s1: float, chance: float, t: float) -> None:
    """A line of parked cars with gaps."""
    s = s0 + rng.uniform(0, 6)
    models = [car(rng, w.tex, f"parked{len(w.tex)}") for k in range(5)]
    while s < s1:
        if rng.random() < chance and st.free(side, s, pad=6):
            turn = (0 if side > 0 else np.pi) + rng.normal(0, 0.015)
            w.geo.put(models[rng.integers(5)], st.at(s, side * (t + rng.normal(0, 0.06))), float(st.psi(s)) + turn)
        s += rng.uniform(5.6, 7.0)


def furniture(w: World, rng: Rng, st: Street, s0: float, s1: float, lamps: float, people: float) -> None:
    """Lamp posts, signs, bins and people along both pavements."""
    h = st.width / 2
    lit = lamp(rng.uniform(5.5, 8), 1.4)
    for side in (-1, 1):
        for s in np.arange(s0 + rng.uniform(0, lamps), s1, lamps):
            if st.free(side, s, pad=1):
                w.geo.put(lit, st.at(s, side * (h + 0.55), 0.1), float(st.psi(s)) + (np.pi if side > 0 else 0))
        for s in np.arange(s0 + rng.uniform(0, 20), s1, 23.0):
            if st.free(side, s, pad=2) and rng.random() < 0.7:
                w.geo.put(sign(rng), st.at(s, side * (h + 0.6), 0.1), float(st.psi(s)) + rng.normal(0, 0.1))
            q = s + rng.uniform(3, 9)
            if st.free(side, q, pad=2) and rng.random() < 0.5:
                w.geo.put(
                    bin_(str(rng.choice(["green", "blue", "dark", "brown"]))),
                    st.at(q, side * (h + st.pave - 0.4), 0.14),
                    float(st.psi(q)) - side * np.pi / 2,
                )
        for s in np.arange(s0, s1, people):
            q = s + rng.uniform(-0.5, 0.5) * people
            if st.free(side, q, pad=1):
                t = side * (h + rng.uniform(0.9, max(1.0, st.pave - 0.6)))
                w.geo.put(
                    person(rng), st.at(q, t, 0.14), float(st.psi(q)) + rng.choice([0, np.pi]) + rng.normal(0, 0.2)
                )


def trees(w: World, rng: Rng, n: int) -> list[Geo]:
    """A few tree models to be planted many times."""
    return [tree(rng, rng.uniform(7, 11), f"leaf{k % 4}", conifer=(k % 4 == 3)) for k in range(n)]


def bumps(rng: Rng, radius: float, start: float) -> Callable[[Array], Array]:
    """The curvature of a road that winds: alternating bends no tighter than radius."""
    sign_, phase = rng.choice([-1, 1]), rng.uniform(0, 1)
    return lambda s: sign_ / radius * np.sin(2 * np.pi * ((s - start) / 190 + 0.5 * phase)) * (s > start)


def build(kind: str, seed: int, step: float, opts: dict) -> World:
    """Lays out one drive of a kind: city, avenue, homes, country, crossing or tee."""
    rng = np.random.default_rng(seed)
    w = World(tex=textures(rng))
    urban = kind in ("city", "crossing", "tee", "avenue")
    width = (
        opts.get("width")
        or {
            "city": rng.uniform(9.6, 12),
            "avenue": 16.0,
            "homes": rng.uniform(8.4, 10),
            "country": rng.uniform(6, 7),
            "crossing": rng.uniform(9.6, 11.5),
            "tee": 10.0,
        }[kind]
    )
    paved = {"avenue": 5.5, "homes": 1.8}
    pave = 0.0 if kind == "country" else opts.get("pave", paved.get(kind, rng.uniform(2.2, 3.4)))
    bend = opts.get("radius", 0)
    end = opts.get("end", 46.0) if kind == "tee" else 330.0
    main = Street(
        (0, 0), 0.0, -40.0, end, width, pave, bumps(rng, bend, opts.get("start", 10.0)) if bend else (lambda s: 0 * s)
    )
    streets, cross = [main], opts.get("cross", {"crossing": 42.0, "tee": end}.get(kind))
    house = {"homes": "home", "country": "home"}.get(kind, "town")
    setback = {"avenue": 3.0, "homes": rng.uniform(3.5, 6)}.get(kind, 0.0)
    if cross:
        half, cp = opts.get("cross_width", 8.0) / 2, 2.4
        skew = rng.normal(0, 0.03)
        centre = main.at(cross + (half if kind == "tee" else 0))[:2]
        side = Street(tuple(centre), float(main.psi(cross)) - np.pi / 2 + skew, -150.0, 150.0, 2 * half, cp)
        c0 = cross + (half if kind == "tee" else 0)
        main.gaps += [(k, c0, half, half + cp + setback) for k in (-1, 1)]
        body = width / 2 + pave
        side.gaps += [
            (k, 0.0, width / 2, body + setback + (13.5 if house == "town" else 18))
            for k in ((1,) if kind == "tee" else (-1, 1))
        ]
        # the side street runs to the right, so its right-hand side faces back to the camera
        streets.append(side)
        side.surface(w.geo, -0.006, "pave", "dash" if rng.random() < 0.6 else "")
        for k in (-1, 1):
            houses(
                w,
                rng,
                side,
                k,
                -148,
                140,
                0.0 if house == "town" else 3.0,
                house,
                (0, 0) if house == "town" else (4, 9),
            )
        furniture(w, rng, side, -70, 70, 27, 16)
        parked(w, rng, side, -1, -90, 90, 0.35, half - 1.0)
    lane = {"country": "edge", "avenue": "wide", "homes": ""}.get(kind, "dash")
    main.surface(w.geo, 0.0, "cobble" if kind == "homes" and rng.random() < 0.5 else "pave", lane)
    if cross and kind != "homes":  # zebra stripes in front of the crossing
        for t in np.arange(-width / 2 + 0.5, width / 2 - 0.4, 1.0):
            main.strip(w.geo, "paint", cross - half - 5.5, cross - half - 2.5, (t, t + 0.5), (0.009, 0.009), 1.0)
    ground = "grass" if kind in ("country", "homes") else "cobble"
    if kind == "country" and rng.random() < 0.4:
        ground = "field"
    hills = opts.get("hills", 30.0 if kind == "country" else 12.0)
    height = terrain(w, rng, streets, ground, hills, 26.0 if kind == "country" else 60.0)
    if kind == "country":
        for k in (-1, 1):
            main.strip(w.geo, "grass", -38, 328, (k * width / 2, k * (width / 2 + 5)), (-0.002, -0.03), 7.0)
    wood = trees(w, rng, 7)
    parking = opts.get("parking", {"city": 0.6, "homes": 0.4, "crossing": 0.45, "tee": 0.45}.get(kind, 0.0))
    if kind in ("city", "crossing", "tee", "avenue"):
        for k in (-1, 1):
            space = (0.0, 0.0) if kind != "avenue" else (0.0, 6.0)
            houses(w, rng, main, k, -38, min(end - 4, 290), setback, "town", space)
            if parking:
                parked(w, rng, main, k, -25, min(end - 12, 200), parking, width / 2 - 1.05)
        furniture(w, rng, main, -10, min(end - 4, 150), rng.uniform(20, 30), opts.get("people", 11.0))
        rows = opts.get("trees", {"avenue": 9.0, "city": rng.choice([0.0, 14.0])}.get(kind, 0.0))
        if rows:
            for k in (-1, 1):
                for s in np.arange(-20, min(end, 280), rows):
                    if main.free(k, s, pad=3):
                        size = rng.uniform(0.62, 0.85) if kind != "avenue" else rng.uniform(0.8, 1.05)
                        w.geo.put(
                            wood[rng.choice([0, 1, 2, 4])],
                            main.at(s, k * (width / 2 + (1.9 if kind == "avenue" else 0.8)), 0.1),
                            rng.uniform(0, 6),
                            size,
                        )
    if kind == "homes":
        for k in (-1, 1):
            edge = k * (width / 2 + pave + 0.45)
            for mid, wide in houses(w, rng, main, k, -30, 250, setback, "home", (3.5, 8.5)):
                style = rng.integers(4)
                a, b = mid - wide / 2 - 1.5, mid + wide / 2 - 2.6
                seg = 2.9
                for s in np.arange(a, b, seg):
                    if main.free(k, s, pad=4):
                        if style in (0, 3):
                            piece = hedge(rng, seg + 0.05, 0.8 if style else 1.15 + 0.35 * rng.random())
                        else:
                            piece = fence(rng, seg + 0.05 * (style == 1), style == 1)
                        w.geo.put(piece, main.at(s, edge, 0), float(main.psi(s + seg / 2)))
                if rng.random() < 0.75:
                    s = mid + rng.uniform(-0.5, 0.5) * wide
                    w.geo.put(
                        wood[rng.integers(len(wood))],
                        main.at(s, edge + k * 1.7),
                        rng.uniform(0, 6),
                        rng.uniform(0.35, 0.6),
                    )
                if rng.random() < 0.6:
                    w.geo.put(
                        wood[rng.integers(len(wood))],
                        main.at(mid + wide / 2 + 2.5, edge + k * rng.uniform(6, 16)),
                        rng.uniform(0, 6),
                        rng.uniform(0.7, 1.1),
                    )
                if rng.random() < 0.5:
                    w.geo.put(
                        bin_(str(rng.choice(["green", "blue", "dark"]))),
                        main.at(b + 0.6, edge - k * 0.2, 0.14),
                        float(main.psi(b)),
                    )
            parked(w, rng, main, k, -20, 220, parking, width / 2 - 0.98)
        furniture(w, rng, main, -10, 150, 29, 24.0)
    if kind == "country":
        closed = rng.uniform(0, 1, 2) if "closed" not in opts else np.array(opts["closed"])
        for k, dense in zip((-1, 1), closed, strict=True):
            for _ in range(int(24 + 190 * dense)):
                s = rng.uniform(-30, 300)
                t = width / 2 + (2.6 + rng.exponential(16) if dense > 0.5 else rng.uniform(5, 110))
                x, y, _z = main.at(s, k * t)
                if min(np.hypot(*(main.at(main.s)[:, :2] - (x, y)).T)) > width / 2 + 2.4:
                    w.geo.put(
                        wood[rng.integers(len(wood))], (x, y, height(x, y)), rng.uniform(0, 6), rng.uniform(0.5, 1.3)
                    )
            if dense < 0.75 and rng.random() < 0.8:
                for s in np.arange(-30, 200, 4.0):
                    w.geo.put(fence(rng, 4.0, False), main.at(s, k * (width / 2 + 3.2), -0.03), float(main.psi(s + 2)))
            for s in np.arange(-10, 280, 25.0):
                g = Geo()
                g.box("palette", (-0.06, 0.06), (-0.06, 0.06), (0, 0.95), colour="white")
                g.box("palette", (-0.065, 0.065), (-0.065, 0.065), (0.66, 0.8), colour="dark")
                w.geo.put(g, main.at(s, k * (width / 2 + 0.8), -0.02), float(main.psi(s)))
            for s in rng.uniform(20, 190, 3):
                q = rng.uniform(1.2, 1.7) * 8 + 2
                w.geo.put(hedge(rng, 14, 1.6, 1.6), main.at(s, k * q, -0.05), float(main.psi(s)))
            if rng.random() < 0.7:
                s = rng.uniform(40, 120)
                main.gaps = []
                houses(w, rng, main, k, s, s + 12, 9.0, "home", (6, 9))
        furn = lamp(7.5, 0.1)
        for s in np.arange(0, 300, 38.0):
            w.geo.put(furn, main.at(s, -(width / 2 + 4.2)), 0)
    for k in range(70):  # far trees close the horizon
        a, r = rng.uniform(-1.2, 1.2), rng.uniform(150, 420)
        x, y = r * np.sin(a), r * np.cos(a) + 60
        near = min(np.hypot(*(st.at(st.s)[:, :2] - (x, y)).T).min() for st in streets)
        if near > 24 + (14 if urban else 0):
            w.geo.put(wood[k % 7], (x, y, height(x, y) - 0.2), 0.0, rng.uniform(1.0, 1.8))
    inner = width / 4 if kind != "avenue" else width * rng.choice([0.125, 0.375])
    if parking:
        inner = min(inner, (width / 2 - 2.0) / 2 - 0.1)
    for k, (s, v, lane_, model) in enumerate(opts.get("movers", [])):
        mesh = car(rng, w.tex, f"mover{k}", model)
        st = streets[1] if lane_ == "cross" else main
        t = {
            "ahead": inner,
            "oncoming": -inner,
            "cross": np.sign(v) * st.width / 4,
            "right": width * 0.375,
            "left": width * 0.125,
            "far": -width * 0.375,
        }[lane_]
        w.movers.append((mesh, st, s, v, float(t)))
    t0, yaw = inner + opts.get("shift", 0.0), np.radians(opts.get("yaw", rng.normal(0, 1.2)))
    wob = rng.uniform(0, 6, 2)

    def camera(i: int) -> tuple[Array, float]:
        s = opts.get("s0", 0.0) + step * i
        pos = main.at(s, t0 + 0.12 * np.sin(s / 9 + wob[0]), 1.65)
        return pos, float(main.psi(s + 4)) + yaw + np.radians(0.5) * np.sin(s / 14 + wob[1])

    w.camera = camera
    return w
