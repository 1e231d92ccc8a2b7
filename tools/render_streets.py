"""Renders thousands of random streets for pre-training: pairs in the layout and geometry of KITTI raw, not committed.

    python tools/render_streets.py --out FOLDER --streets 500               render what is missing
    python tools/render_streets.py --out FOLDER --streets 20 --depth        the same with true depth
    python tools/render_streets.py --out FOLDER --check                     warp error of the pairs with true depth

Needs mitsuba 3, numpy and pillow, and LLVM's shared library (Debian: apt install llvm). `render_sample.py` makes few,
careful frames; this tool makes many, cheap ones, from the same parts. mitsuba only finds what a ray hits; colours
are looked up here: each of a pixel's rays asks once for the sun and once for one direction of the sky, and these
directions are the same in every pixel and in both views, so light has no noise. The world stands still; a street's
frames are places along it. Frames on disk are kept; a street depends on nothing but the seed and its number.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sample_scenes as parts
from render_sample import BASE, CX, CY, FAR, Drive, F, H, Sky, W, calibration, save, tone, warp_error
from sample_scenes import PALETTE, Geo, Rng, Street, World, noise, tint

Array = np.ndarray
DATE = "2025_02_02"
QUALITY = 90
RAYS = 12  # rays a pixel
REACH = 300.0  # metres of street that are built
SETS = 6  # variants of the common textures


# ---- the shelf: models and textures made once a process ------------------------------------------------------


class Model(NamedTuple):
    """Triangles: vertices (n, 3), faces (m, 3), a material's index (m) and texture coordinates (m, 3, 2) a face."""

    v: Array
    f: Array
    mat: Array
    uv: Array
    length: float = 0.0


class Shelf:
    """What streets are made of: models by kind, and every texture with its halved copies in one array of texels."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self.names: dict[str, int] = {}  # material -> index
        self.sets: list[dict[str, int]] = []  # one choice of textures for the common materials: material -> texture
        own: dict[str, Array] = {}  # textures of single models
        texels, self.offset, self.size, self.levels, start = [], [], [], [], 0

        def add(img: Array, most: int) -> int:
            """Stores a texture and its halved copies; returns its index."""
            nonlocal start
            small = Image.fromarray(np.clip(img, 3, 250).astype(np.uint8))
            offsets, sizes = [], []
            for _ in range(most + 1):
                offsets.append(start)
                sizes.append((small.height, small.width))
                texels.append(np.asarray(small).reshape(-1, 3))
                start += small.height * small.width
                if min(small.size) < 4:
                    break
                small = small.resize((small.width // 2, small.height // 2), Image.Resampling.BOX)
            last = 10 - len(offsets)
            self.levels.append(len(offsets) - 1)
            self.offset.append(offsets + offsets[-1:] * last)
            self.size.append(sizes + sizes[-1:] * last)
            return len(self.levels) - 1

        for _ in range(SETS):
            tex = parts.textures(rng)
            tex["brick"] = brick(rng)
            tex["plaster"] = tint((184, 176, 160), noise(rng, 256, 256, 1.2), 0.12, 0.03, rng)
            self.sets.append({name: add(img, 3 if name == "palette" else 8) for name, img in tex.items()})
        self.names.update((name, i) for i, name in enumerate(self.sets[0]))

        def model(geo: Geo) -> Model:
            v, f, mat, uv, n = [], [], [], [], 0
            for name, items in geo.parts.items():
                index = self.names.setdefault(name, len(self.names))
                for p, faces, q in items:
                    v.append(p)
                    f.append(faces + n)
                    mat.append(np.full(len(faces), index))
                    uv.append(q[faces].astype(np.float32))
                    n += len(p)
            p = np.concatenate(v)
            return Model(
                p.astype(np.float32), np.concatenate(f), np.concatenate(mat), np.concatenate(uv), float(np.ptp(p[:, 1]))
            )

        def house(kind: str, k: int) -> tuple[Model, float]:
            h = parts.random_house(rng, kind)
            own[f"{kind}{k}"] = parts.facade(rng, h)
            return model(h.mesh(f"{kind}{k}", rng)), h.bays * h.bw

        leafy = [(float(rng.uniform(5, 14)), f"leaf{k % 4}", k % 4 == 3) for k in range(40)]
        self.model = model
        self.town = [house("town", k) for k in range(70)]
        self.home = [house("home", k) for k in range(50)]
        self.cars = [model(parts.car(rng, own, f"car{k}")) for k in range(90)]
        for k in range(90):  # most cars are grey, black or white
            if k % 3:
                own[f"car{k}"] += (own[f"car{k}"].mean(-1, keepdims=True) - own[f"car{k}"]) * rng.uniform(0.75, 1)
        self.vans = [model(parts.car(rng, own, f"van{k}", "van")) for k in range(8)]
        self.vans += [model(truck(rng)) for _ in range(14)]
        self.trees = [model(parts.tree(rng, *a, rings=7, leaves=40)) for a in leafy]
        self.far_trees = [model(parts.tree(rng, *a, rings=5, leaves=8)) for a in leafy]
        self.bushes = [model(bush(rng, f"leaf{k % 3}")) for k in range(16)]
        self.people = [model(parts.person(rng)) for _ in range(24)] + [model(cyclist(rng)) for _ in range(10)]
        self.signs = [model(parts.sign(rng)) for _ in range(12)]
        self.lamps = [model(parts.lamp(rng.uniform(4.5, 9), rng.uniform(0.1, 2))) for _ in range(8)]
        self.bins = [model(parts.bin_(c)) for c in ("green", "blue", "dark", "brown")]
        self.hedges = [model(parts.hedge(rng, 4.05, 1.0)) for _ in range(8)]
        self.rails = [model(parts.fence(rng, 4.0, False))]
        self.boards = [model(parts.fence(rng, 4.05, True))]
        self.guards = [model(guard())]
        self.own = {name: add(img, 4 if name[:3] in ("car", "van") else 8) for name, img in own.items()}
        self.texels = np.concatenate(texels)
        self.offset, self.size = np.array(self.offset), np.array(self.size)
        self.levels = np.array(self.levels)


def brick(rng: Rng) -> Array:
    """A 4 m x 4 m tile of a brick wall."""
    n = 240
    img = tint((150, 92, 72), 0.5 * noise(rng, n, n, 0.5) + noise(rng, n, n, 1.4), 0.08, 0.03, rng)
    img *= np.kron(rng.uniform(0.8, 1.15, (n // 6, n // 12)), np.ones((6, 12)))[..., None]
    yy, xx = np.mgrid[:n, :n]
    img[(yy % 6 == 0) | ((xx + 6 * (yy // 6 % 2)) % 12 == 0)] *= 1.25
    return img


def colour(rng: Rng, *names: str) -> str:
    return str(rng.choice(names or list(PALETTE)))


def truck(rng: Rng) -> Geo:
    """A lorry or a bus, nose towards +y."""
    g, long, tall, half = Geo(), rng.uniform(5.5, 11), rng.uniform(2.7, 3.7), rng.uniform(1.05, 1.25)
    body = colour(rng, "white", "white", "red", "blue", "yellow", "green", "steel", "orange", "beige")
    y0, y1 = -long / 2, long / 2
    if rng.random() < 0.35:  # a bus
        g.box("palette", (-half, half), (y0, y1), (0.35, tall), colour=body)
        for x in (-half - 0.01, half + 0.01):
            for y in np.arange(y0 + 0.4, y1 - 1.2, 1.5):
                g.box("palette", (x - 0.01, x + 0.01), (y, y + 1.25), (1.35, tall - 0.55), colour="dark")
    else:
        g.box("palette", (-half, half), (y0, y1 - 2.1), (0.95, tall), colour=body)
        g.box("palette", (-half + 0.1, half - 0.1), (y0 + 0.1, y1), (0.5, 0.95), colour="dark")
        g.box("palette", (-half + 0.06, half - 0.06), (y1 - 1.9, y1), (0.5, 2.5), colour=colour(rng, body, "white"))
    g.box("palette", (-half + 0.15, half - 0.15), (y1, y1 + 0.02), (1.4, 2.2), colour="dark")
    g.box("palette", (-half + 0.2, half - 0.2), (y0 - 0.02, y0), (1.5, tall - 0.5), colour=colour(rng, body, "dark"))
    for x in (-half + 0.1, half - 0.3):
        g.box("palette", (x, x + 0.2), (y0 - 0.03, y0), (0.75, 0.93), colour="red")
        g.box("palette", (x, x + 0.2), (y1, y1 + 0.03), (0.75, 0.93), colour="white")
        for y in (y0 + 1.2, y1 - 1.1):
            g.tube("palette", (x, y, 0.46), (x + 0.25, y, 0.46), 0.46, 0.46, "tyre", n=14)
    return g


def cyclist(rng: Rng) -> Geo:
    """A person on a bicycle, riding towards +y."""
    g, coat = Geo(), colour(rng, "red", "blue", "green", "teal", "yellow", "dark", "orange")
    for y in (-0.52, 0.52):
        ang = np.linspace(0, 2 * np.pi, 15)
        for a, b in pairwise(ang):
            p, q = ((0, y + 0.33 * np.cos(k), 0.34 + 0.33 * np.sin(k)) for k in (a, b))
            g.tube("palette", p, q, 0.025, 0.025, "tyre", n=4)
    for p, q in (
        ((0, -0.52, 0.34), (0, -0.1, 0.85)),
        ((0, -0.1, 0.85), (0, 0.4, 0.85)),
        ((0, 0.52, 0.34), (0, 0.4, 1)),
    ):
        g.tube("palette", p, q, 0.03, 0.03, "steel", n=5)
    for s in (-1, 1):
        g.tube("palette", (s * 0.1, 0.1 * s, 0.25), (s * 0.12, -0.12, 0.95), 0.07, 0.1, colour(rng, "jeans", "dark"))
        g.tube("palette", (s * 0.22, 0.05, 1.4), (s * 0.25, 0.42, 1.05), 0.06, 0.045, coat)
    g.blob("palette", rng, (0, -0.02, 1.2), (0.22, 0.2, 0.36), 0.02, coat)
    g.blob("palette", rng, (0, 0.12, 1.68), (0.1, 0.12, 0.14), 0.02, "skin", 7)
    return g


def bush(rng: Rng, leaf: str) -> Geo:
    """A rough clump of leaves about a metre high and wide."""
    g = Geo()
    for _ in range(4):
        x, y, r = *rng.uniform(-0.35, 0.35, 2), rng.uniform(0.3, 0.5)
        g.blob(leaf, rng, (x, y, r * 0.9), (r, r, r), 0.22, n=7)
        d = rng.standard_normal((30, 3))
        p = np.array([x, y, r * 0.9]) + d / np.linalg.norm(d, axis=1, keepdims=True) * r * rng.uniform(
            0.9, 1.3, (30, 1)
        )
        e, f = rng.standard_normal((2, 30, 3)) * 0.06
        uv = rng.uniform(0, 1, (30, 1, 2)) + np.array([[0, 0], [0.05, 0], [0.05, 0.05], [0, 0.05]])
        g.quads(leaf, np.stack([p - e, p - f, p + e, p + f], 1), uv)
    return g


def guard() -> Geo:
    """Four metres of guard rail along y."""
    g = Geo()
    for z in (0.45, 0.6):
        g.box("palette", (-0.04, 0.04), (0, 4), (z, z + 0.13), colour="steel")
    for y in (0, 2):
        g.box("palette", (-0.05, 0.05), (y, y + 0.1), (0, 0.7), colour="steel")
    return g


# ---- the street ----------------------------------------------------------------------------------------------


class Stage:
    """Collects models, each moved, turned, scaled and tinted, into one list of triangles."""

    def __init__(self, shelf: Shelf, rng: Rng) -> None:
        self.shelf, self.rng = shelf, rng
        self.items: list[tuple[Array, Array, Array, Array]] = []
        self.tints: list[Any] = []

    def put(self, m: Model, pos: Any, psi: float = 0.0, size: Any = 1.0, vary: float = 0.12) -> None:
        """Adds a model; `vary` is how much its brightness differs from others of its kind."""
        c, s = np.cos(psi), np.sin(psi)
        rot = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        v = (m.v * np.asarray(size)) @ rot + np.asarray(pos, float)
        self.items.append((v.astype(np.float32), m.f, m.mat, m.uv))
        self.tints.append(np.exp(self.rng.normal(0, vary) + self.rng.normal(0, vary / 4, 3)))

    def geo(self, g: Geo, vary: float = 0.12) -> None:
        self.put(self.shelf.model(g), (0, 0, 0), vary=vary)

    def one(self, models: list) -> Any:
        return models[self.rng.integers(len(models))]

    def merged(self) -> tuple[Array, ...]:
        """Vertices, faces, materials, texture coordinates and the index of each face's tint."""
        start = np.cumsum([0] + [len(v) for v, *_ in self.items])[:-1]
        v, f, mat, uv = zip(*self.items, strict=True)
        f = tuple(a + o for a, o in zip(f, start, strict=True))
        tints = np.repeat(np.arange(len(f)), [len(a) for a in f])
        return np.concatenate(v), np.concatenate(f), np.concatenate(mat), np.concatenate(uv), tints


KINDS: dict[str, dict[str, Any]] = {  # share; width; pavement; chances of parked cars; what stands beside, by weight
    "homes": {
        "share": 0.28,
        "width": (5.5, 9.5),
        "pave": (1.2, 2.5),
        "parking": (0.0, 0.35, 0.6, 0.8),
        "beside": {"homes": 8, "hedge": 1.5, "wood": 1.5, "wall": 1, "lot": 0.7, "open": 0.5, "bank": 0.5},
    },
    "city": {
        "share": 0.26,
        "width": (7.0, 15.0),
        "pave": (1.5, 4.5),
        "parking": (0.0, 0.4, 0.7, 0.9),
        "beside": {"town": 8, "hall": 1.5, "wall": 0.7, "wood": 1, "lot": 1.2, "hedge": 0.5},
    },
    "country": {
        "share": 0.2,
        "width": (5.0, 8.0),
        "pave": (0.0, 0.0),
        "parking": (0.0, 0.0, 0.0, 0.1),
        "beside": {"open": 4, "wood": 5, "row": 2.5, "hedge": 1.5, "bank": 2, "homes": 1, "rail": 1.5},
    },
    "wide": {
        "share": 0.16,
        "width": (14.0, 22.0),
        "pave": (0.0, 3.0),
        "parking": (0.0, 0.0, 0.0, 0.4),
        "beside": {"rail": 4, "bank": 2, "wood": 3, "wall": 1, "hall": 2, "row": 1.5, "town": 1, "open": 1.5},
    },
    "lane": {
        "share": 0.1,
        "width": (3.6, 5.2),
        "pave": (0.0, 1.2),
        "parking": (0.0, 0.0, 0.3),
        "beside": {"wall": 4, "hedge": 3, "town": 3, "homes": 2, "wood": 3, "bank": 1},
    },
}


class Side:
    """Fills one side of a street; distances t are measured outwards from the edge of its pavement."""

    def __init__(self, stage: Stage, street: Street, side: int, ground: Callable[[float, float], float]) -> None:
        self.stage, self.rng, self.st, self.side, self.ground = stage, stage.rng, street, side, ground
        self.edge = street.width / 2 + street.pave

    def put(self, m: Model, s: float, t: float, turn: float = 0.0, size: Any = 1.0, z: float | None = None) -> None:
        """Stands a model at s and t, on the ground if no z is given."""
        p = self.st.at(s, self.side * (self.edge + t))
        p[2] = self.ground(p[0], p[1]) if z is None else z
        self.stage.put(m, p, float(self.st.psi(s)) + turn, size)

    def strip(self, mat: str, s0: float, s1: float, t: tuple, z: tuple, scale: float) -> None:
        g = Geo()
        self.st.strip(g, mat, s0, s1, tuple(self.side * (self.edge + k) for k in t), z, scale)
        self.stage.geo(g)

    def tree(self, s: float, t: float, size: float = 1.0, stretch: float = 0.2) -> None:
        near = s < 70 and t < 14
        m = self.stage.one(self.stage.shelf.trees if near else self.stage.shelf.far_trees)
        wide, high = size * np.exp(self.rng.normal(0, stretch, 2))
        self.put(m, s, t, self.rng.uniform(0, 6.3), (wide, wide, high))

    def line(self, models: list, s0: float, s1: float, t: float, size: Any = 1.0) -> None:
        """Pieces of four metres in a row: a fence, a hedge, a rail."""
        for s in np.arange(s0, s1 - 3.9, 4.0):
            bend = float(self.st.psi(s + 2) - self.st.psi(s))
            self.put(self.stage.one(models), s, t, bend, size, 0.0 if t > 0.3 else 0.1)

    def fill(self, s0: float, s1: float, weights: dict[str, float]) -> None:
        """Stretches of 15 to 70 m, each of another kind."""
        names, w = list(weights), np.array(list(weights.values()))
        s = s0
        while s < s1 - 6:
            long = min(self.rng.uniform(15, 70), s1 - s)
            name = str(self.rng.choice(names, p=w / w.sum()))
            getattr(self, name)(s, s + long)
            s += long

    def row_of_houses(self, models: list, s0: float, s1: float, back: tuple, space: tuple) -> list:
        out, s, base = [], s0, self.rng.uniform(*back)
        while True:
            m, width = self.stage.one(models)
            if s + width > s1:
                return out
            mid, t = s + width / 2, base + self.rng.uniform(0, 0.25) * base
            high = float(np.exp(self.rng.normal(0, 0.08)))
            self.put(m, mid, t, -self.side * np.pi / 2, (1, 1, high), 0.0)
            out.append((mid, width, t))
            s += width + self.rng.uniform(*space)

    def town(self, s0: float, s1: float) -> None:
        back = self.rng.choice([0.0, 0.0, 3.0, 8.0])
        self.row_of_houses(self.stage.shelf.town, s0, s1, (back, back + 0.01), (0, self.rng.choice([0.0, 0.0, 8.0])))
        if back == 8.0:
            for s in np.arange(s0, s1, self.rng.uniform(6, 12)):
                self.tree(s, self.rng.uniform(1, 4), 0.8)

    def homes(self, s0: float, s1: float) -> None:
        rng, shelf = self.rng, self.stage.shelf
        for mid, wide, t in self.row_of_houses(shelf.home, s0, s1, (1.5, 9), (1, rng.uniform(2, 9))):
            a, b = mid - wide / 2 - 1.5, mid + wide / 2 + rng.choice([-2.6, 1.5])
            border = rng.integers(6)
            if border < 2:
                self.line(shelf.hedges, a, b, 0.5, (1, 1, rng.uniform(0.6, 2.2)))
            elif border < 4:
                self.line(shelf.boards if border == 2 else shelf.rails, a, b, 0.3, (1, 1, rng.uniform(0.6, 1.4)))
            elif border == 4:
                self.wall_piece(a, b, 0.3, rng.uniform(0.5, 1.6))
            for _ in range(rng.integers(0, 4)):
                s = mid + rng.uniform(-0.8, 0.8) * wide
                if rng.random() < 0.5:
                    self.put(
                        self.stage.one(shelf.bushes), s, rng.uniform(0.8, max(1.0, t - 0.7)), 0, rng.uniform(0.7, 2)
                    )
                else:
                    self.tree(s, rng.uniform(1.2, 3), rng.uniform(0.3, 0.6))
            if rng.random() < 0.7:
                self.tree(mid + wide / 2 + 2, t + rng.uniform(2, 14), rng.uniform(0.6, 1.2))
            if t > 5.5 and rng.random() < 0.4:  # a car in the drive
                self.put(self.stage.one(shelf.cars), mid + wide / 2 - 1.2, t - 2.7, rng.choice([-1, 1]) * np.pi / 2)

    def wall_piece(self, s0: float, s1: float, t: float, high: float) -> None:
        mat = str(self.rng.choice(["brick", "plaster", "boards", "cobble"]))
        scale = {"brick": 4.0, "plaster": 5.0, "boards": 1.2, "cobble": 3.0}[mat]
        self.strip(mat, s0, s1, (t, t + 0.01), (-0.1, high), scale)
        self.strip("palette", s0, s1, (t - 0.06, t + 0.3), (high, high + 0.02), 1e9)
        self.strip(mat, s0, s1, (t + 0.25, t + 0.26), (high, -0.1), scale)
        for s in (s0, s1):  # the ends
            g = Geo()
            q = self.st.at(
                np.full(4, s),
                self.side * (self.edge + t + np.array([0, 0.26, 0.26, 0])),
                np.array([-0.1, -0.1, high, high]),
            )
            g.quads(mat, q[None], np.stack([q[None, :, 0] - q[0, 0], q[None, :, 2]], -1) / scale)
            self.stage.geo(g)

    def wall(self, s0: float, s1: float) -> None:
        t, high = self.rng.uniform(0.1, 1.5), self.rng.uniform(1.2, 4.5)
        self.wall_piece(s0, s1, t, high)
        for s in np.arange(s0, s1, self.rng.uniform(4, 20)):
            self.tree(s, t + self.rng.uniform(2, 9), self.rng.uniform(0.6, 1.2))

    def hedge(self, s0: float, s1: float) -> None:
        high, t = self.rng.uniform(1, 4), self.rng.uniform(0.5, 2)
        self.line(self.stage.shelf.hedges, s0, s1, t, (self.rng.uniform(0.8, 2), 1, high))
        for s in np.arange(s0, s1, self.rng.uniform(6, 30)):
            self.tree(s, t + self.rng.uniform(1, 12))

    def wood(self, s0: float, s1: float) -> None:
        rng, dense = self.rng, self.rng.uniform(0.25, 0.6)
        for _ in range(int((s1 - s0) * dense)):
            self.tree(rng.uniform(s0, s1), 1.2 + rng.exponential(8), rng.uniform(0.5, 1.3))
        for _ in range(int((s1 - s0) * rng.uniform(0, 1.2))):
            self.put(
                self.stage.one(self.stage.shelf.bushes),
                rng.uniform(s0, s1),
                1.2 + rng.exponential(3),
                0,
                rng.uniform(0.6, 2.6),
            )

    def row(self, s0: float, s1: float) -> None:
        t, size = self.rng.uniform(1, 4), self.rng.uniform(0.7, 1.3)
        for s in np.arange(s0, s1, self.rng.uniform(5, 14)):
            self.tree(s, t, size, 0.1)

    def bank(self, s0: float, s1: float) -> None:
        t, wide, high = self.rng.uniform(0.3, 3), self.rng.uniform(2, 7), self.rng.uniform(0.8, 4)
        mat = "grass" if self.rng.random() < 0.8 else "cobble"
        along, across = np.arange(s0, s1, 1.0)[:, None], t + np.array([[0, wide, wide + 6, wide + 10]])
        rise = np.array([[0, high, high - 0.3, 0]]) * np.clip(np.minimum(along - s0, s1 - 1 - along) / 5, 0, 1)
        g = Geo()
        p = self.st.at(along, self.side * (self.edge + across), rise - 0.06)
        g.grid(mat, p, np.stack(np.broadcast_arrays(along, across * 1.2), -1) / 7)
        self.stage.geo(g)
        for _ in range(int((s1 - s0) * self.rng.uniform(0, 0.5))):
            k = self.rng.uniform(0, 1)
            m = self.stage.one(self.stage.shelf.bushes)
            self.put(m, self.rng.uniform(s0, s1), t + k * wide, 0, self.rng.uniform(0.6, 2.2), k * high - 0.1)
        for _ in range(int((s1 - s0) * self.rng.uniform(0, 0.15))):
            s, wide_, high_ = self.rng.uniform(s0, s1), *np.exp(self.rng.normal(0, 0.2, 2))
            m = self.stage.one(self.stage.shelf.far_trees)
            self.put(m, s, t + wide + self.rng.uniform(0, 5), self.rng.uniform(0, 6), (wide_, wide_, high_), high - 0.4)

    def rail(self, s0: float, s1: float) -> None:
        self.line(self.stage.shelf.guards, s0, s1, self.rng.uniform(0.4, 1.2))
        self.open(s0, s1)

    def open(self, s0: float, s1: float) -> None:
        rng = self.rng
        if rng.random() < 0.35:
            self.line(self.stage.shelf.rails, s0, s1, rng.uniform(2, 5))
        for _ in range(int((s1 - s0) * rng.uniform(0, 0.12))):
            self.tree(rng.uniform(s0, s1), rng.uniform(6, 70))
        for _ in range(int((s1 - s0) * rng.uniform(0, 0.15))):
            self.put(
                self.stage.one(self.stage.shelf.bushes),
                rng.uniform(s0, s1),
                rng.uniform(2.5, 20),
                0,
                rng.uniform(0.5, 2.2),
            )

    def hall(self, s0: float, s1: float) -> None:
        """Large buildings behind a strip of green or cars."""
        t = self.rng.uniform(4, 16)
        m, width = self.stage.one(self.stage.shelf.town)
        size = (s1 - s0) / width * 0.9
        self.put(m, (s0 + s1) / 2, t, -self.side * np.pi / 2, (size, 2, self.rng.uniform(0.5, 1.4)), 0.0)
        if t > 9:
            self.lot(s0, s1)
        else:
            self.row(s0, s1)

    def lot(self, s0: float, s1: float) -> None:
        """Cars parked across."""
        turn, t = self.rng.choice([0, 0, 0.5]), self.rng.uniform(2.8, 4)
        self.strip("asphalt", s0, s1, (0.02, 11), (0.005, 0.005), 20.0)
        for s in np.arange(s0 + 2, s1 - 2, 2.6 + turn):
            if self.rng.random() < 0.75:
                m = self.stage.one(self.stage.shelf.cars)
                self.put(m, s, t, self.rng.choice([-1, 1]) * np.pi / 2 + turn + self.rng.normal(0, 0.03), z=0.0)
        if self.rng.random() < 0.5:
            for s in np.arange(s0, s1, 9.0):
                self.tree(s, 8 + self.rng.uniform(-1, 1), 0.7)

    def furniture(self, s0: float, s1: float, people: float) -> None:
        """Lamps, signs, bins and people beside the carriageway."""
        rng, shelf, kerb = self.rng, self.stage.shelf, 0.55 if self.st.pave else 1.2
        every, lamp = rng.uniform(18, 45), self.stage.one(shelf.lamps)
        for s in np.arange(s0 + rng.uniform(0, every), s1, every):
            if self.st.free(self.side, s, pad=1):
                self.put(lamp, s, kerb - self.st.pave, np.pi if self.side > 0 else 0, z=0.0)
        for s in rng.uniform(s0, min(s1, 120), rng.integers(0, 7)):
            if self.st.free(self.side, s, pad=1):
                self.put(
                    self.stage.one(shelf.signs),
                    s,
                    kerb + 0.1 - self.st.pave,
                    rng.normal(0, 0.15),
                    rng.uniform(0.8, 1.4),
                    0.0,
                )
        for s in rng.uniform(s0, min(s1, 100), rng.poisson(people)):
            if self.st.free(self.side, s) and self.st.pave > 0.8:
                t = rng.uniform(0.5, self.st.pave - 0.2) - self.st.pave
                self.put(self.stage.one(shelf.people), s, t, rng.choice([0, np.pi]) + rng.normal(0, 0.3), z=0.14)
        for s in rng.uniform(s0, min(s1, 100), rng.integers(0, 4)):
            if self.st.free(self.side, s) and self.st.pave > 1:
                self.put(self.stage.one(shelf.bins), s, -0.4, rng.normal(-self.side * np.pi / 2, 0.2), z=0.14)

    def parked(self, s0: float, s1: float, chance: float, t: float) -> None:
        """A line of parked cars with gaps, t inwards from the kerb's edge."""
        s = s0 + self.rng.uniform(0, 6)
        while s < s1:
            m = self.stage.one(self.stage.shelf.cars if self.rng.random() < 0.93 else self.stage.shelf.vans)
            if self.rng.random() < chance and self.st.free(self.side, s, pad=6):
                wrong = self.rng.random() < 0.1
                turn = (0 if (self.side > 0) != wrong else np.pi) + self.rng.normal(0, 0.02)
                self.put(m, s + m.length / 2, t - self.st.pave, turn, z=0.0)
            s += m.length + self.rng.uniform(0.6, 2.2)


class Place(NamedTuple):
    """Where a frame is taken from: the left camera, and its axes as rows: right, down, ahead."""

    eye: Array
    axes: Array


def lay_out(stage: Stage) -> list[Place]:
    """Builds a random street; returns places to look from, in an order of preference."""
    rng, shelf = stage.rng, stage.shelf
    kind = str(rng.choice(list(KINDS), p=[k["share"] for k in KINDS.values()]))
    spec = KINDS[kind]
    width, pave = rng.uniform(*spec["width"]), rng.uniform(*spec["pave"])
    pave = pave if pave > 0.5 else 0.0
    radius = rng.choice([0, 0, rng.uniform(60, 150), rng.uniform(150, 600)])
    curve = parts.bumps(rng, radius * (2 if kind == "wide" else 1), rng.uniform(-40, 60)) if radius else lambda s: 0 * s
    main = Street((0, 0), 0.0, -40.0, REACH, width, pave, curve)
    streets, corners = [main], []
    if kind != "wide" and rng.random() < 0.4:  # a side road, to one hand or both
        half, at = rng.uniform(2.5, 5), rng.uniform(15, 95)
        hands = [(-1,), (1,), (-1, 1)][rng.integers(3)]
        for k in hands:
            main.gaps.append((k, at, half + 0.5, half + 3))
            psi = float(main.psi(at)) - k * (np.pi / 2 + rng.normal(0, 0.06))
            side = Street(tuple(main.at(at)[:2]), psi, 0.0, 110.0, 2 * half, pave and 1.8)
            streets.append(side)
            corners.append(side)
    g = Geo()
    lane = str(rng.choice({"wide": ["wide"], "lane": ["", "", "edge"]}.get(kind, ["dash", "dash", "edge", ""])))
    main.surface(g, 0.0, "cobble" if rng.random() < 0.3 else "pave", lane)
    for side in corners:
        side.gaps = [(k, 0.0, width / 2 + pave, 0.0) for k in (-1, 1)]
        side.surface(g, -0.004, "pave", "dash" if rng.random() < 0.4 else "")
    if (corners and rng.random() < 0.5) or rng.random() < 0.12:  # zebra stripes
        s = main.gaps[0][1] - main.gaps[0][2] - 4.5 if corners else rng.uniform(10, 70)
        for t in np.arange(-width / 2 + 0.5, width / 2 - 0.4, 1.0):
            main.strip(g, "paint", s, s + 3, (t, t + 0.5), (0.009, 0.009), 1.0)
    world = World(geo=g)
    ground = str(
        rng.choice(["grass", "grass", "field"] if kind in ("country", "wide") else ["grass", "grass", "cobble"])
    )
    if kind == "city":
        ground = str(rng.choice(["cobble", "pave", "grass"]))
    height = parts.terrain(world, rng, streets, ground, rng.uniform(0, 45), rng.uniform(22, 70))
    if not pave:
        for k in (-1, 1):
            main.strip(g, "grass", -38, REACH - 2, (k * width / 2, k * (width / 2 + 3)), (-0.002, -0.03), 7.0)
    stage.geo(g, 0.1)
    chances = rng.choice(spec["parking"], 2)
    people = {"city": 5.0, "homes": 1.5}.get(kind, 0.3)
    for k in (-1, 1):
        side = Side(stage, main, k, height)
        cuts, a = [(x[1] - x[3], x[1] + x[3]) for x in main.gaps if x[0] == k], -25.0
        for lo, hi in [*cuts, (REACH - 40, REACH)]:
            side.fill(a, lo, spec["beside"])
            a = hi
        side.furniture(-5, 160, people)
        if chances[(k + 1) // 2]:
            side.parked(-20, 170, chances[(k + 1) // 2], -1.0 if width > 5 else 0.2)
    for street in corners:
        for k in (-1, 1):
            side = Side(stage, street, k, height)
            side.fill(width / 2 + pave + 15, 105, spec["beside"])
            side.parked(width / 2 + pave + 4, 90, rng.choice([0, 0.5]), -1.0)
    # lanes: what is left between parked cars
    left, right = -width / 2 + 2.1 * (chances[0] > 0), width / 2 - 2.1 * (chances[1] > 0)
    n = max(2, int((right - left) / 3.5)) if kind == "wide" else 1 + (right - left > 4.8)
    lanes = left + (np.arange(n) + 0.5) * (right - left) / n
    mine = int(rng.integers(n // 2, n))
    blocked: list[tuple[float, float]] = []
    for i, t in enumerate(lanes):
        with_us = i >= n // 2 or n == 1
        if rng.random() < (0.25 if kind in ("homes", "country", "lane") else 0.1):
            continue
        s = rng.uniform(-15, 45) if i != mine else rng.uniform(4, 50)
        spread = rng.choice([8.0, 20.0, 50.0])
        while s < 200:
            m = stage.one(shelf.cars if rng.random() < 0.86 else shelf.vans)
            if i == mine:
                blocked.append((s - m.length / 2, s + m.length / 2))
            off = t + rng.normal(0, 0.25)
            stage.put(m, main.at(s, off), float(main.psi(s)) + (0 if with_us else np.pi) + rng.normal(0, 0.015))
            s += m.length + 3 + rng.exponential(spread)
    if kind != "wide" and n == 2 and rng.random() < 0.3:  # somebody on a bicycle in our lane, or crossing
        s = rng.uniform(8, 50)
        t, turn = (
            (lanes[mine] + 1.0, 0.0) if rng.random() < 0.6 else (rng.uniform(left, right), rng.choice([-1, 1]) * 1.57)
        )
        stage.put(stage.one(shelf.people), main.at(s, t), float(main.psi(s)) + turn)
        blocked.append((s - 0.5, s + 0.5))
    if kind == "wide" and rng.random() < 0.5:  # a rail between the two carriageways, a bridge across
        middle = Side(stage, main, 1, height)
        middle.line(shelf.guards, -20, 250, -middle.edge + (lanes[n // 2] + lanes[n // 2 - 1]) / 2)
    if kind in ("wide", "country") and rng.random() < 0.15:
        s, g = rng.uniform(30, 140), Geo()
        for z0, z1, y1 in ((5.2, 6.4, 8), (6.4, 7.4, 0.3)):
            p = np.array(
                [
                    [[-90, 0, z0], [90, 0, z0], [90, 0, z1], [-90, 0, z1]],
                    [[-90, y1, z1], [90, y1, z1], [90, 0, z1], [-90, 0, z1]],
                    [[-90, 0, z0], [90, 0, z0], [90, y1, z0], [-90, y1, z0]],
                ],
                float,
            )
            g.quads("plaster", p, np.stack([p[..., 0], p[..., 1] + p[..., 2]], -1) / 5)
        for x in (-width / 2 - 2.5, width / 2 + 2.5):
            g.box("plaster", (x - 0.7, x + 0.7), (1, 7), (-1, 5.2), 5.0)
        stage.put(shelf.model(g), main.at(s), float(main.psi(s)))
    for _ in range(60):  # far trees and roofs close the horizon
        a, r = rng.uniform(-1.2, 1.2), rng.uniform(140, 420)
        p = np.array([r * np.sin(a), r * np.cos(a) + 60, 0])
        if min(np.hypot(*(st.at(st.s)[:, :2] - p[:2]).T).min() for st in streets) > 30:
            p[2] = height(p[0], p[1]) - 0.2
            if kind == "city" and rng.random() < 0.5:
                stage.put(stage.one(shelf.town)[0], p, np.pi - a + rng.normal(0, 0.5), rng.uniform(1, 1.6))
            else:
                stage.put(stage.one(shelf.far_trees), p, rng.uniform(0, 6), rng.uniform(0.9, 1.8))
    # where to look from: clear of what stands in our lane
    turned = rng.random() < 0.12
    places = []
    for s in rng.permutation(np.linspace(0, 75, 26)) + rng.uniform(-1.4, 1.4, 26):
        if any(lo - 4.5 < s < hi + 1.5 for lo, hi in blocked):
            continue
        psi = float(main.psi(s + 3)) + np.radians(rng.normal(0, 12 if turned else 1.8))
        pitch, roll = np.radians(rng.normal(0, 0.8)), np.radians(rng.normal(0, 0.8))
        c, d = np.cos(psi), np.sin(psi)
        axes = np.array([[c, d, 0], [0, 0, -1.0], [-d, c, 0]])
        for i, j, angle in ((1, 2, pitch), (0, 1, roll)):
            axes[[i, j]] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ axes[[i, j]]
        places.append(Place(main.at(s, lanes[mine] + rng.normal(0, 0.2), 1.65 + rng.normal(0, 0.03)), axes))
    return places


# ---- rendering -----------------------------------------------------------------------------------------------


class Lens(NamedTuple):
    """KITTI's camera 2 at a width: size in pixels, focal length and centre (pixel centres at whole numbers)."""

    h: int
    w: int

    @property
    def f(self) -> float:
        return F * self.w / W

    def rays(self, dx: float = 0.0, dy: float = 0.0) -> Array:
        """Camera rays (h*w, 3) with z = 1 through the pixels' centres, or beside them."""
        cx, cy = CX * self.w / W, (CY - H / 2) * self.w / W + self.h / 2  # as in render_sample's calibration
        u, v = np.meshgrid((np.arange(self.w) + dx - cx) / self.f, (np.arange(self.h) + dy - cy) / self.f)
        return np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3)


def spots(n: int) -> Array:
    """n points (n, 2) spread over a pixel, from -0.5 to 0.5."""
    k = np.arange(n)
    return np.stack([(k + 0.5) / n, (k * 0.618034 + 0.5) % 1], -1) - 0.5


def ball(n: int) -> Array:
    """n directions spread over the sphere (n, 3), in a shuffled order."""
    z, a = 1 - (2 * np.arange(n) + 1) / n, np.arange(n) * 2.399963
    d = np.stack([np.sqrt(1 - z * z) * np.cos(a), np.sqrt(1 - z * z) * np.sin(a), z], -1)
    return np.random.default_rng(1).permutation(d)


class Set:
    """A street ready to be looked at: triangles for mitsuba, tables for colours, and light."""

    def __init__(self, shelf: Shelf, seed: int, number: int, lens: Lens) -> None:
        import mitsuba as mi

        self.mi, self.shelf, self.lens = mi, shelf, lens
        rng = np.random.default_rng([seed, number, 2])
        stage = Stage(shelf, rng)
        self.places = lay_out(stage)
        v, f, mat, uv, self.tint_of = stage.merged()
        mesh = mi.Mesh("street", len(v), len(f))
        params = mi.traverse(mesh)
        params["vertex_positions"], params["faces"] = v.ravel(), f.astype(np.uint32).ravel()
        params.update()
        self.scene = mi.load_dict({"type": "scene", "street": mesh})
        self.tints = np.array(stage.tints, np.float32)
        table = np.zeros(len(shelf.names), int)  # material -> texture; each common one from a set of its own
        for name, i in shelf.names.items():
            table[i] = shelf.own[name] if name in shelf.own else shelf.sets[rng.integers(SETS)][name]
        self.tex, self.uv = table[mat], uv
        a, b, c = (v[f[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        area = np.linalg.norm(normal, axis=1)
        self.normal = (normal / np.maximum(area, 1e-12)[:, None]).astype(np.float32)
        p, q = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
        texels = np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) * shelf.size[self.tex, 0].prod(1)
        self.grain = np.sqrt(texels / np.maximum(area, 1e-12)).astype(np.float32)  # texels a metre
        light = str(rng.choice(["sun", "low", "overcast"], p=[0.45, 0.2, 0.35]))
        self.sky = Sky(Drive("train", number, "", light, 0, 0.0, {}), seed)
        self.sun = np.array(self.sky.sun) * rng.uniform(0.8, 1.8)
        elev, azim = np.radians(rng.uniform(14, 32) if light == "low" else rng.uniform(28, 62)), rng.uniform(0, 6.28)
        self.sky.to_sun = np.array([np.sin(azim) * np.cos(elev), np.cos(azim) * np.cos(elev), np.sin(elev)])
        z, az = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(32) + 0.5) / 32 * 2 * np.pi - np.pi, indexing="ij")
        d = np.stack([np.sqrt(1 - z * z) * np.cos(az), np.sqrt(1 - z * z) * np.sin(az), z], -1)
        self.dome = self.sky.radiance(d).astype(np.float32)
        around = (self.dome * z[..., None]).mean((0, 1)) * 2 * np.pi + self.sun * self.sky.to_sun[2]
        self.bounce = (0.13 * around / np.pi).astype(np.float32)
        self.aim, self.turn = rng.uniform(72, 112), rng.uniform(0, 6.28)
        self.cast_colour = np.exp(rng.normal(0, 0.04, 3))

    def cast(self, eye: Array, d: Array) -> tuple[Array, Array, Array]:
        """Along rays from one eye: the distance in lengths of d (inf for none), the face, barycentric (n, 2)."""
        ray = self.mi.Ray3f(self.mi.Point3f(*eye.tolist()), self.mi.Vector3f(np.ascontiguousarray(d.T, np.float32)))
        hit = self.scene.ray_intersect_preliminary(ray, coherent=True)
        return np.array(hit.t), np.array(hit.prim_index), np.array(hit.prim_uv).T

    def blocked(self, p: Array, d: Array) -> Array:
        ray = self.mi.Ray3f(self.mi.Point3f(np.ascontiguousarray(p.T)), self.mi.Vector3f(np.ascontiguousarray(d.T)))
        return np.array(self.scene.ray_test(ray))

    def depth(self, place: Place) -> Array:
        """Camera z (h, w) through the pixels' centres, 0 where there is none up to FAR."""
        t = self.cast(place.eye, self.lens.rays() @ place.axes)[0]
        return np.where(t <= FAR, t, 0).reshape(self.lens).astype(np.float32)

    def good(self, place: Place) -> bool:
        """Whether a place is worth a frame: nothing in our face, and the street can be seen, in both views."""
        for eye in (place.eye, place.eye + BASE * place.axes[0]):
            z = self.depth(Place(eye, place.axes))
            z = np.where(z > 0, z, FAR)
            middle = z[:, self.lens.w // 4 : -self.lens.w // 4]
            if z.min() < 2.2 or (z < 4.5).mean() > 0.25 or np.median(middle) < 6 or np.percentile(middle, 95) < 10:
                return False
        return True

    def texture(self, face: Array, bary: Array, t: Array, cos: Array, k: Array) -> Array:
        """Linear reflectance (n, 3): the nearest texel of the halved copy that fits; rays of a pixel share two."""
        sh, tex = self.shelf, self.tex[face]
        corner = self.uv[face]
        uv = corner[:, 0] + bary[:, :1] * (corner[:, 1] - corner[:, 0]) + bary[:, 1:] * (corner[:, 2] - corner[:, 0])
        wide = self.grain[face] * t / (self.lens.f * np.sqrt(np.maximum(cos, 0.05)))  # texels a pixel
        level = np.floor(np.log2(np.maximum(wide, 1e-6)) - 0.8 + k)
        level = np.clip(level, 0, sh.levels[tex]).astype(int)
        size = sh.size[tex, level]
        x = (np.floor(uv[:, 0] * size[:, 1]).astype(int)) % size[:, 1]
        y = (np.floor(uv[:, 1] * size[:, 0]).astype(int)) % size[:, 0]
        return LINEAR[sh.texels[sh.offset[tex, level] + y * size[:, 1] + x]] * self.tints[self.tint_of[face]]

    def view(self, eye: Array, axes: Array) -> tuple[Array, Array]:
        """One view in linear RGB (h, w, 3), and each pixel's share of not-sky (h, w)."""
        n = self.lens.h * self.lens.w
        d = (np.concatenate([self.lens.rays(dx, dy) for dx, dy in spots(RAYS)]) @ axes).astype(np.float32)
        t, face, bary = self.cast(eye, d)
        hit = np.flatnonzero(np.isfinite(t))
        k = hit // n
        t, face, bary, d = t[hit], face[hit], bary[hit], d[hit]
        length = np.sqrt((d * d).sum(1))
        normal = self.normal[face]
        cos = -(normal * d).sum(1) / length
        normal = np.where(cos[:, None] < 0, -normal, normal)
        p = eye.astype(np.float32) + d * t[:, None] + normal * (2e-3 + 2e-4 * t[:, None])
        up = ball(RAYS).astype(np.float32)[k] + normal
        up /= np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)
        dark = self.blocked(p, up) | (up[:, 2] <= 0)
        row = np.clip(up[:, 2] * 16, 0, 15).astype(int)
        column = ((np.arctan2(up[:, 1], up[:, 0]) / (2 * np.pi) + 0.5) * 32).astype(int) % 32
        light = np.where(dark[:, None], self.bounce, self.dome[row, column]) * np.float32(np.pi)
        if self.sun.max() > 0:
            e = np.cross(self.sky.to_sun, (0, 0, 1))
            e /= np.linalg.norm(e)
            r, a = 0.006 * np.sqrt((np.arange(RAYS) + 0.5) / RAYS), np.arange(RAYS) * 2.4 + self.turn
            disc = self.sky.to_sun + r[:, None] * (
                np.cos(a)[:, None] * e + np.sin(a)[:, None] * np.cross(e, self.sky.to_sun)
            )
            to_sun = disc.astype(np.float32)[k]
            steep = (normal * to_sun).sum(1)
            lit = np.flatnonzero(steep > 0)
            lit = lit[~self.blocked(p[lit], to_sun[lit])]
            light[lit] += steep[lit, None] * self.sun.astype(np.float32)
        colour = self.texture(face, bary, t, np.abs(cos), (k * 5 % RAYS + 0.5) / RAYS) * light / np.pi
        pixel = hit % n
        cover = np.bincount(pixel, minlength=n) / RAYS
        total = np.stack([np.bincount(pixel, colour[:, c], n) for c in range(3)], -1) / RAYS
        far = self.lens.rays() @ axes
        sky = self.sky.radiance(far / np.linalg.norm(far, axis=1, keepdims=True))
        total = (total + sky * (1 - cover[:, None])).reshape(*self.lens, 3)
        for axis in (0, 1):  # a soft pixel filter, as in render_sample
            before, after = (
                np.take(total, np.clip(np.arange(total.shape[axis]) + o, 0, total.shape[axis] - 1), axis)
                for o in (-1, 1)
            )
            total = 0.09 * before + 0.82 * total + 0.09 * after
        return total, cover.reshape(self.lens)

    def pair(self, place: Place) -> list[Array]:
        """The left and the right view as sRGB bytes; one exposure brings all but the sky to the mean aimed at."""
        views = [self.view(place.eye + b * place.axes[0], place.axes) for b in (0.0, BASE)]
        few = views[0][0][views[0][1] > 0.99][::7]
        gains = np.geomspace(0.2, 8, 24)
        gain = float(np.interp(self.aim, [tone(g * few).mean() for g in gains], gains))
        return [np.round(tone(gain * self.cast_colour * rgb)).astype(np.uint8) for rgb, _ in views]


LEVEL = np.arange(256) / 255
LINEAR = np.where(LEVEL <= 0.04045, LEVEL / 12.92, ((LEVEL + 0.055) / 1.055) ** 2.4).astype(np.float32)


# ---- files ---------------------------------------------------------------------------------------------------


def paths(out: Path, number: int, frame: int) -> tuple[Path, Path, Path]:
    """Left image, right image, true depth."""
    root = out / "train" / f"{DATE}_drive_{number:04d}_sync"
    return (
        root / f"image_02/data/{frame:010d}.jpg",
        root / f"image_03/data/{frame:010d}.jpg",
        root / f"proj_depth/groundtruth/image_02/{frame:010d}.png",
    )


@lru_cache(maxsize=1)
def shelf_for(seed: int) -> Shelf:
    return Shelf(seed)


def job(task: tuple[Path, int, int, int, Lens, bool]) -> tuple[int, int, float]:
    """Renders one street's missing frames; returns its number, the frames made and the CPU seconds they took."""
    out, number, frames, seed, lens, with_depth = task
    files = [paths(out, number, i) for i in range(frames)]
    if all(p.exists() for f in files for p in (f if with_depth else f[:2])):
        return number, 0, 0.0
    import drjit as dr
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    dr.set_thread_count(1)
    shelf = shelf_for(seed)
    start, made = time.process_time(), 0
    street = Set(shelf, seed, number, lens)
    good = (place for place in street.places if street.good(place))
    for (left, right, truth), place in zip(files, good, strict=False):
        if with_depth and not truth.exists():
            z = np.minimum(np.round(street.depth(place) * 256), 65535).astype(np.uint16)
            save(Image.fromarray(z), truth, format="PNG")
        if not (left.exists() and right.exists()):
            a, b = street.pair(place)
            save(Image.fromarray(b), right, format="JPEG", quality=QUALITY, subsampling=0)
            save(Image.fromarray(a), left, format="JPEG", quality=QUALITY, subsampling=0)
            made += 1
    return number, made, time.process_time() - start


def check(out: Path) -> None:
    """Prints, for each street with true depth, how well its right views, warped, give the left ones."""
    worst = []
    for drive in sorted((out / "train").glob(f"{DATE}_drive_*_sync")):
        errors = []
        for truth in sorted(drive.glob("proj_depth/groundtruth/image_02/*.png")):
            a, b = (np.asarray(Image.open(drive / f"image_0{c}/data/{truth.stem}.jpg"), float) for c in (2, 3))
            errors.append(warp_error(a, b, np.asarray(Image.open(truth)).astype(float) / 256))
        if errors:
            print(f"{drive.name} warp error mean {np.mean(errors):.2f} worst {max(errors):.2f} of 255", flush=True)
            worst += errors
    if not worst:
        sys.exit(f"{out}/train holds no pair with true depth: render some with --depth first.")
    print(f"{len(worst)} pairs: mean {np.mean(worst):.2f}, worst {max(worst):.2f} of 255")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", type=Path, required=True, help="folder to write; the drives go to its folder train")
    ap.add_argument("--streets", type=int, default=500, help="how many (default 500)")
    ap.add_argument("--first", type=int, default=1, help="number of the first street (default 1)")
    ap.add_argument("--frames", type=int, default=6, help="frames a street (default 6)")
    ap.add_argument(
        "--size", type=int, nargs=2, default=(128, 416), metavar=("H", "W"), help="pixels (default 128 416)"
    )
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    ap.add_argument("--depth", action="store_true", help="true depth of the left views, too: to check, not to train on")
    ap.add_argument("--check", action="store_true", help="measure the pairs with true depth instead of rendering")
    args = ap.parse_args()
    if args.check:
        return check(args.out)
    try:
        import mitsuba  # noqa: F401
    except ImportError:
        sys.exit("This tool needs mitsuba 3: pip install mitsuba.")
    lens = Lens(*args.size)
    calib = args.out / DATE / "calib_cam_to_cam.txt"
    calib.parent.mkdir(parents=True, exist_ok=True)
    calib.write_text(calibration(*lens))
    numbers = range(args.first, args.first + args.streets)
    tasks = [(args.out, n, args.frames, args.seed, lens, args.depth) for n in numbers]
    total, seconds = 0, 0.0
    with mp.get_context("spawn").Pool(args.jobs) as pool:
        for number, made, spent in pool.imap(job, tasks):
            total, seconds = total + made, seconds + spent
            if made:
                print(f"street {number}: {made} pairs, {seconds / total:.2f} CPU seconds a pair so far", flush=True)


if __name__ == "__main__":
    main()
