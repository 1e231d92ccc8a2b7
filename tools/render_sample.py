"""Renders the sample data: streets in the layout and geometry of KITTI raw, with their true depth.

    python tools/render_sample.py --out data/sample            render what is missing
    python tools/render_sample.py --out data/sample --check    warp the right views and compare with the left

Needs mitsuba 3, numpy and pillow (only this tool does). Light is a sum of many parallel sources, the same for
both views: each pass renders one direction of the sky or of the sun, so soft light has no noise.
Frames already on disk are kept. A frame depends only on the seed and the number of samples.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import sys
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sample_scenes import World, build, noise

Array = np.ndarray
DATE, W, H = "2025_01_01", 416, 128
SCALE = W / 1242.0
F = 721.5377 * SCALE
CX, CY = 609.5593 * SCALE, 172.854 * SCALE + (H - 375 * SCALE) / 2  # pixel centres at whole numbers
BASE = 0.53273
P02 = 44.85728 * SCALE  # P_rect_02[0,3]; camera 3's follows from the baseline
FAR = 255.0
QUALITY = 94
RAYS = 3  # rays per pixel for each direction of light


class Drive(NamedTuple):
    """One drive: its split and number, kind of street, light, frames, metres per frame and further options."""

    split: str
    number: int
    kind: str
    light: str
    frames: int
    step: float
    opts: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{DATE}_drive_{self.number:04d}_sync"


def ahead(gap: float, v: float, model: str = "") -> tuple:
    return gap, v, "ahead", model


def oncoming(gap: float, v: float, model: str = "") -> tuple:
    return gap, -v, "oncoming", model


DRIVES = [
    Drive("train", 1, "city", "sun", 12, 2.5, {"movers": [ahead(17, 2.3), oncoming(60, 2.0)], "people": 8.0}),
    Drive("train", 2, "country", "sun", 12, 3.0, {"radius": 150, "closed": (0.1, 0.3), "movers": [oncoming(70, 2.6)]}),
    Drive(
        "train",
        3,
        "crossing",
        "sun",
        12,
        2.2,
        {"cross": 40.0, "cross_width": 10.0, "movers": [(-25, 3.2, "cross", ""), (30, -2.6, "cross", "van")]},
    ),
    Drive("train", 4, "homes", "overcast", 12, 2.4, {"radius": 170, "movers": [oncoming(50, 1.6)]}),
    Drive("train", 5, "city", "low", 12, 2.4, {"width": 12.0, "parking": 0.5, "movers": [oncoming(45, 2.2)]}),
    Drive(
        "train",
        6,
        "avenue",
        "sun",
        12,
        2.8,
        {
            "movers": [
                (14, 3.2, "left", ""),
                (22, 2.4, "right", "van"),
                (70, -2.8, "far", ""),
                (55, -2.2, "oncoming", ""),
            ]
        },
    ),
    Drive(
        "train", 7, "country", "overcast", 12, 3.0, {"radius": 120, "closed": (0.9, 0.8), "movers": [ahead(24, 2.8)]}
    ),
    Drive("train", 8, "tee", "sun", 12, 2.2, {"end": 44.0, "movers": [(-20, 2.6, "cross", "estate")]}),
    Drive("train", 9, "homes", "sun", 12, 2.4, {"parking": 0.6, "movers": [ahead(12, 2.4, "hatch")]}),
    Drive("train", 10, "avenue", "low", 12, 2.8, {"radius": 300, "movers": [ahead(10, 2.8), (40, -2.6, "far", "van")]}),
    Drive(
        "train",
        11,
        "crossing",
        "overcast",
        12,
        2.4,
        {"cross": 34.0, "cross_width": 13.0, "parking": 0.3, "movers": [ahead(14, 2.0), (-40, 3.0, "cross", "")]},
    ),
    Drive(
        "train",
        12,
        "city",
        "overcast",
        12,
        2.0,
        {
            "width": 6.4,
            "pave": 1.7,
            "parking": 0.0,
            "radius": 130,
            "people": 7.0,
            "trees": 0.0,
            "movers": [ahead(9, 2.1, "van")],
        },
    ),
    Drive("train", 13, "homes", "low", 12, 2.4, {"radius": 120, "parking": 0.25, "cross": 52.0, "start": 75.0}),
    Drive(
        "train",
        14,
        "country",
        "low",
        12,
        3.0,
        {"radius": 200, "closed": (0.6, 0.1), "hills": 55.0, "movers": [oncoming(55, 2.4), ahead(34, 3.0)]},
    ),
    Drive(
        "vals",
        101,
        "city",
        "sun",
        8,
        2.6,
        {"radius": 180, "s0": 0.6, "shift": -0.3, "movers": [oncoming(40, 2.2), ahead(20, 2.6)]},
    ),
    Drive("vals", 102, "homes", "overcast", 8, 2.6, {"parking": 0.5, "movers": [oncoming(42, 2.0)]}),
    Drive(
        "test",
        201,
        "city",
        "sun",
        48,
        0.5,
        {
            "width": 11.0,
            "radius": 220,
            "trees": 0.0,
            "movers": [
                ahead(11, 0.56, "hatch"),
                oncoming(34, 0.5, "estate"),
                oncoming(58, 0.55),
                oncoming(80, 0.5, "van"),
            ],
        },
    ),
    Drive(
        "test", 202, "country", "low", 12, 2.8, {"radius": 140, "closed": (0.2, 0.75), "movers": [oncoming(60, 2.4)]}
    ),
]
LIGHTS = {  # sun: elevation, colour; sky: zenith, horizon, cloud cover; mean grey level aimed at
    "sun": (42.0, (2.9, 2.65, 2.3), (0.30, 0.50, 0.95), (0.66, 0.82, 1.04), 0.0, 92.0),
    "low": (20.0, (4.8, 3.6, 2.35), (0.34, 0.48, 0.84), (0.96, 0.86, 0.74), -0.05, 90.0),
    "overcast": (0.0, (0.0, 0.0, 0.0), (1.05, 1.08, 1.14), (0.86, 0.88, 0.92), 1.6, 94.0),
}


class Sky:
    """A sky: radiance by direction, and the parallel sources that stand for it and for the sun."""

    def __init__(self, drive: Drive, seed: int) -> None:
        rng = np.random.default_rng([seed, drive.number, 7])
        elev, self.sun, zenith, horizon, self.cover, self.aim = LIGHTS[drive.light]
        self.zenith, self.horizon = np.array(zenith), np.array(horizon)
        elev = np.radians(elev + rng.uniform(-3, 6))
        azim = np.radians(
            rng.choice([-1, 1]) * rng.uniform(*((152, 172) if drive.light == "low" else (65, 160)))
        )  # 0 is ahead
        self.to_sun = np.array([np.sin(azim) * np.cos(elev), np.cos(azim) * np.cos(elev), np.sin(elev)])
        self.clouds = noise(rng, 512, 512, 1.55)
        self.fill = 0.12 * sum(e * d[2] for d, e in self.sources(90)) / np.pi

    def radiance(self, d: Array) -> Array:
        """Linear RGB for unit directions (..., 3)."""
        z = np.maximum(d[..., 2:], 0.0)
        sky = self.horizon + (self.zenith - self.horizon) * np.minimum(1, z * 1.25) ** 0.6
        q = d[..., :2] / (z + 0.22) * 60 % 512
        i, f = q.astype(int) % 512, (q - np.floor(q))
        j = (i + 1) % 512
        (x0, y0), (x1, y1), (fx, fy) = (np.moveaxis(k, -1, 0) for k in (i, j, f))
        n = (
            (self.clouds[y0, x0] * (1 - fx) + self.clouds[y0, x1] * fx) * (1 - fy)
            + (self.clouds[y1, x0] * (1 - fx) + self.clouds[y1, x1] * fx) * fy
        )[..., None]
        if self.cover > 1:
            return sky * (1 + 0.16 * n)
        glow = np.maximum(d @ self.to_sun, 0)[..., None] ** 12 * 0.25
        return (
            sky
            + (np.array([1.25, 1.2, 1.15]) - sky) * np.clip((n - 0.2 + self.cover * 2) * 0.38, 0, 0.8)
            + glow * self.sun
        )

    def sources(self, n: int) -> list[tuple[Array, Array]]:
        """About n directions of light with their irradiance; a third of them is the sun's disc."""
        suns = n // 3 if max(self.sun) > 0 else 0
        skies = n - suns
        k = np.arange(skies) + 0.5
        z, a = 1 - k / skies * 0.97, k * 2.399963
        d = np.stack([np.sqrt(1 - z * z) * np.cos(a), np.sqrt(1 - z * z) * np.sin(a), z], -1)
        out = list(zip(d, self.radiance(d) * 2 * np.pi * 0.97 / skies, strict=True))
        e = np.cross(self.to_sun, (0, 0, 1))
        e /= np.linalg.norm(e)
        for i in range(suns):
            r, turn = 0.006 * np.sqrt((i + 0.5) / suns), i * 2.399963
            v = self.to_sun + r * (np.cos(turn) * e + np.sin(turn) * np.cross(e, self.to_sun))
            out.append((v / np.linalg.norm(v), np.array(self.sun) / suns))
        return out


class Studio:
    """A drive ready to be rendered: its world, sky and mitsuba materials."""

    def __init__(self, drive: Drive, seed: int) -> None:
        import mitsuba as mi

        mi.set_variant("scalar_rgb")
        self.mi, self.drive = mi, drive
        self.world: World = build(drive.kind, seed * 1000 + drive.number, drive.step, drive.opts)
        self.sky = Sky(drive, seed)
        self.tex = {
            name: mi.load_dict({"type": "bitmap", "bitmap": mi.Bitmap(np.clip(t, 3, 250).astype(np.uint8))})
            for name, t in self.world.tex.items()
        }
        self.bsdf = {
            name: mi.load_dict({"type": "twosided", "b": {"type": "diffuse", "reflectance": t}})
            for name, t in self.tex.items()
        }
        self.still = self.world.geo.merged()
        self.fixed = {f"fixed_{m}": self.mesh(m, *g) for m, g in self.still.items()}

    def mesh(self, mat: str, v: Array, f: Array, uv: Array, eye: Array | None = None) -> Any:
        """A mitsuba mesh; with an eye, a mesh that emits its own colour towards the eye."""
        props = self.mi.Properties()
        if eye is None:
            props["bsdf"] = self.bsdf[mat]
        else:
            props["emitter"] = self.mi.load_dict({"type": "area", "radiance": self.tex[mat]})
            a, b, c = (v[f[:, k]] for k in range(3))
            f = np.where((np.cross(b - a, c - a) * (eye - a)).sum(1)[:, None] < 0, f[:, ::-1], f)
        mesh = self.mi.Mesh(mat, len(v), len(f), has_vertex_texcoords=True, props=props)
        p = self.mi.traverse(mesh)
        p["vertex_positions"] = v.astype(np.float32).ravel()
        p["faces"] = f.astype(np.uint32).ravel()
        p["vertex_texcoords"] = uv.astype(np.float32).ravel()
        p.update()
        return mesh

    def scene(self, frame: int) -> tuple[Any, Any, Array, Array]:
        """A frame's mitsuba scene, the same in flat colours, the left camera's position, its axes as rows.

        The axes are right, down and ahead.
        """
        pos, psi = self.world.camera(frame)
        axes = np.array([[np.cos(psi), np.sin(psi), 0], [0, 0, -1], [-np.sin(psi), np.cos(psi), 0]])
        look = self.mi.ScalarTransform4f().look_at

        def sensor(o: Array) -> dict:
            return {
                "type": "perspective",
                "fov_axis": "x",
                "fov": float(np.degrees(2 * np.arctan(W / 2 / F))),
                "near_clip": 0.05,
                "far_clip": 1e4,
                "principal_point_offset_x": 0.5 - (CX + 0.5) / W,
                "principal_point_offset_y": 0.5 - (CY + 0.5) / H,
                "to_world": look(origin=o.tolist(), target=(o + axes[2]).tolist(), up=[0, 0, 1]),
                "film": {
                    "type": "hdrfilm",
                    "width": W,
                    "height": H,
                    "pixel_format": "rgba",
                    "component_format": "float32",
                    "rfilter": {"type": "box"},
                },
            }

        moving = self.world.moving(frame).merged()
        eyes = {"left": sensor(pos), "right": sensor(pos + BASE * axes[0])}
        middle = pos + BASE / 2 * axes[0]
        lit = self.mi.load_dict(
            {
                "type": "scene",
                "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0},
                **eyes,
                "light": {"type": "directional", "irradiance": {"type": "rgb", "value": [1.0, 1.0, 1.0]}},
                **self.fixed,
                **{f"moving_{m}": self.mesh(m, *g) for m, g in moving.items()},
            }
        )
        flat = self.mi.load_dict(
            {
                "type": "scene",
                "integrator": {"type": "path", "max_depth": 1},
                **eyes,
                **{
                    f"{k}_{m}": self.mesh(m, *g, middle)
                    for k, w in (("fixed", self.still), ("moving", moving))
                    for m, g in w.items()
                },
            }
        )
        return lit, flat, pos, axes

    def depth(self, scene: Any, pos: Array, axes: Array) -> Array:
        """Depth of the left view at every pixel's centre, 0 where there is no surface up to FAR metres."""
        u, v = np.meshgrid((np.arange(W) - CX) / F, (np.arange(H) - CY) / F)
        d = np.stack([u, v, np.ones_like(u)], -1) @ axes
        o, z = self.mi.Point3f(*pos.tolist()), np.zeros((H, W))
        for y in range(H):
            for x in range(W):
                ray = self.mi.Ray3f(o, self.mi.Vector3f(*d[y, x].tolist()))
                z[y, x] = scene.ray_intersect_preliminary(ray).t
        return np.where(z <= FAR, z, 0).astype(np.float32)

    def light(self, scene: Any, flat: Any, axes: Array, eye: int, samples: int) -> tuple[Array, Array]:
        """One view in linear RGB from about `samples` rays per pixel, and each pixel's share without sky."""
        sources = self.sky.sources(max(samples // RAYS, 6))
        params = self.mi.traverse(scene)
        look = self.mi.ScalarTransform4f().look_at
        total, cover = np.zeros((H, W, 3)), np.zeros((H, W, 1))
        for i, (d, e) in enumerate(sources):
            up = [0, 0, 1] if abs(d[2]) < 0.99 else [1, 0, 0]
            params["light.to_world"] = look(origin=[0, 0, 0], target=(-d).tolist(), up=up)
            params["light.irradiance.value"] = self.mi.Color3f(*e.tolist())
            params.update()
            img = np.array(self.mi.render(scene, sensor=eye, spp=RAYS, seed=i), dtype=float)
            total, cover = total + img[..., :3], cover + img[..., 3:] / len(sources)
        own = np.array(self.mi.render(flat, sensor=eye, spp=max(samples // 4, 16), seed=len(sources)), dtype=float)
        total += own[..., :3] * self.sky.fill  # indirect light
        u, v = np.meshgrid((np.arange(W) - CX) / F, (np.arange(H) - CY) / F)
        d = np.stack([u, v, np.ones_like(u)], -1) @ axes
        rgb = total + self.sky.radiance(d / np.linalg.norm(d, axis=-1, keepdims=True)) * (1 - cover)
        for axis in (0, 1):  # a soft pixel filter
            pad = np.pad(rgb, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
            n = rgb.shape[axis]
            a, b, c = (np.take(pad, range(o, o + n), axis) for o in range(3))
            rgb = 0.09 * a + 0.82 * b + 0.09 * c
        return rgb, cover[..., 0]

    @cached_property
    def exposure(self) -> float:
        """The exposure of the drive: its first frame, without sky, gets the mean grey level of its light."""
        scene, flat, _, axes = self.scene(0)
        rgb, cover = self.light(scene, flat, axes, 0, 80)
        gains = np.geomspace(0.3, 6, 40)
        means = [tone(g * rgb)[cover > 0.99].mean() for g in gains]
        return float(np.interp(self.sky.aim, means, gains))

    def views(self, scene: Any, flat: Any, axes: Array, samples: int) -> list[Array]:
        """The left and the right view as sRGB bytes."""
        return [
            np.round(tone(self.exposure * self.light(scene, flat, axes, eye, samples)[0])).astype(np.uint8)
            for eye in (0, 1)
        ]


def tone(rgb: Array) -> Array:
    """Linear light to sRGB levels 0 to 255, with a soft shoulder."""
    x = 1 - np.exp(-rgb)
    return 255 * np.clip(np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055), 0, 1)


@lru_cache(maxsize=1)
def studio(number: int, seed: int) -> Studio:
    return Studio(next(d for d in DRIVES if d.number == number), seed)


def paths(out: Path, drive: Drive, frame: int) -> tuple[Path, Path, Path]:
    """Left image, right image, true depth."""
    root = out / drive.split / drive.name
    return (
        root / f"image_02/data/{frame:010d}.jpg",
        root / f"image_03/data/{frame:010d}.jpg",
        root / f"proj_depth/groundtruth/image_02/{frame:010d}.png",
    )


def has_truth(drive: Drive, frame: int) -> bool:
    return drive.split != "train" or frame == 0


def save(img: Image.Image, path: Path, **kw: Any) -> None:
    """Writes a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    img.save(part, **kw)
    os.replace(part, path)


def job(task: tuple[Path, int, list[int], int, int]) -> tuple[str, int, Array, Array]:
    """Renders some frames of a drive; returns the sum and the count of their inverse depths."""
    out, number, frames, seed, samples = task
    st = studio(number, seed)
    total, count, made = np.zeros((H, W)), np.zeros((H, W)), 0
    for i in frames:
        left, right, truth = paths(out, st.drive, i)
        todo = not (left.exists() and right.exists() and (truth.exists() or not has_truth(st.drive, i)))
        if not todo and st.drive.split != "train":
            continue
        scene, flat, pos, axes = st.scene(i)
        z = st.depth(scene, pos, axes)
        total += np.divide(1, z, out=np.zeros((H, W)), where=z > 0)
        count += z > 0
        if todo:
            a, b = st.views(scene, flat, axes, samples)
            if has_truth(st.drive, i):
                save(Image.fromarray(np.minimum(np.round(z * 256), 65535).astype(np.uint16)), truth, format="PNG")
            save(Image.fromarray(b), right, format="JPEG", quality=QUALITY, subsampling=0)
            save(Image.fromarray(a), left, format="JPEG", quality=QUALITY, subsampling=0)
            made += 1
    return st.drive.name, made, total, count


def calibration() -> str:
    """KITTI's calib_cam_to_cam.txt for the four cameras of the rig, at the sample's size."""

    def line(key: str, *v: float) -> str:
        return f"{key}: " + " ".join(f"{x:.6e}" for x in v)

    rows = ["calib_time: 01-Jan-2025 00:00:00", line("corner_dist", 0.0995)]
    for cam, p in enumerate((0.0, -F * 0.5372, P02, P02 - F * BASE)):
        k = (F, 0.0, CX, 0.0, F, CY, 0.0, 0.0, 1.0)
        eye = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        rows += [
            line(f"S_{cam:02d}", W, H),
            line(f"K_{cam:02d}", *k),
            line(f"D_{cam:02d}", 0, 0, 0, 0, 0),
            line(f"R_{cam:02d}", *eye),
            line(f"T_{cam:02d}", p / F, 0.0, 0.0),
            line(f"S_rect_{cam:02d}", W, H),
            line(f"R_rect_{cam:02d}", *eye),
            line(f"P_rect_{cam:02d}", F, 0.0, CX, p, 0.0, F, CY, 0.0, 0.0, 0.0, 1.0, 0.0),
        ]
    return "\n".join(rows) + "\n"


def warp_error(left: Array, right: Array, z: Array) -> float:
    """Mean |left - right(x - d)| in grey levels over the pixels that both views see."""
    h, w = z.shape
    d = np.divide(F * w / W * BASE, z, out=np.zeros_like(z), where=z > 0)
    x = np.arange(w)[None] - d
    seen = (z > 0) & (x >= 0)
    for y in range(h):
        hides = (np.abs(x[y][None] - x[y][:, None]) < 1) & (d[y][None] >= d[y][:, None] + 1)
        seen[y] &= ~(hides & (z[y] > 0)).any(1)
    x = np.clip(x, 0, w - 1.001)
    i, f, rows = x.astype(int), (x % 1)[..., None], np.arange(h)[:, None]
    guess = right[rows, i] * (1 - f) + right[rows, i + 1] * f
    return float(np.abs(guess - left)[seen].mean())


def check(out: Path, drives: list[Drive]) -> None:
    """Prints, for each drive, the warp error of its frames with truth, nearest depth and share without depth."""
    for drive in drives:
        errors, near, sky = [], [], []
        for i in range(drive.frames):
            if has_truth(drive, i):
                files = paths(out, drive, i)
                if not all(p.exists() for p in files):
                    sys.exit(f"{files[0]} or its partners are missing: render {drive.name} first.")
                a, b = (np.asarray(Image.open(p), float) for p in files[:2])
                z = np.asarray(Image.open(files[2])).astype(float) / 256
                errors.append(warp_error(a, b, z))
                near.append(z[z > 0].min())
                sky.append((z == 0).mean())
        print(
            f"{drive.name} {drive.kind:9s}{drive.light:9s} warp error mean {np.mean(errors):.2f} worst "
            f"{max(errors):.2f} of 255, nearest {min(near):.1f} m, no depth {100 * np.mean(sky):.0f} %",
            flush=True,
        )


def readme(seed: int, samples: int) -> str:
    rows = "\n".join(f"| {d.split} | {d.number:04d} | {d.kind}, {d.light} | {d.frames} |" for d in DRIVES)
    return f"""# Sample data: rendered streets

Stereo pairs in the layout of KITTI raw, {W} x {H}, f = {F:.2f} px, baseline {BASE} m, perfectly rectified.
`<split>/<drive>/image_02` is the left view, `image_03` the right one; calibration is in `{DATE}/`. True depth
of the left view (uint16 PNG, metres * 256, 0 = unknown: sky or beyond {FAR:.0f} m) is in
`proj_depth/groundtruth/image_02`, for every frame of vals and test and for the first of each train drive.
`mean_inverse_depth.npy` is the mean of 1/z over all train frames in which a pixel's depth is known.

| split | drive | kind, light | frames |
|---|---|---|---|
{rows}

Made by `python tools/render_sample.py --out data/sample --seed {seed} --samples {samples}` (mitsuba 3,
scalar_rgb, about {samples} samples a pixel, JPEG quality {QUALITY}); the tool makes all shapes and textures.
Licence: CC0 1.0, see LICENSE.
"""


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", type=Path, required=True, help="folder to write, such as data/sample")
    ap.add_argument("--only", type=int, metavar="DRIVE", help="one drive, by its number")
    ap.add_argument("--frames", type=int, nargs="*", help="only these frames of each drive")
    ap.add_argument("--samples", type=int, default=144, help="rays a pixel (default 144)")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--check", action="store_true", help="measure what is there instead of rendering")
    args = ap.parse_args()
    if args.samples < 24 or args.seed < 0:
        sys.exit("--samples must be at least 24 and --seed must not be negative.")
    drives = [d for d in DRIVES if args.only in (None, d.number)]
    if not drives:
        sys.exit(f"There is no drive {args.only}: choose one of {', '.join(str(d.number) for d in DRIVES)}.")
    if args.check:
        return check(args.out, drives)
    try:
        import mitsuba  # noqa: F401
    except ImportError:
        sys.exit("This tool needs mitsuba 3: pip install mitsuba.")
    asked, page = f"--seed {args.seed} --samples {args.samples}`", args.out / "README.md"
    if page.is_file() and asked not in page.read_text(encoding="utf-8"):
        sys.exit(f"{args.out} holds frames of another seed or number of samples: choose another folder.")
    tasks = []
    for d in drives:
        frames = [i for i in range(d.frames) if args.frames is None or i in args.frames]
        tasks += [(args.out, d.number, frames[i : i + 12], args.seed, args.samples) for i in range(0, len(frames), 12)]
    total, count = np.zeros((H, W)), np.zeros((H, W))
    with mp.get_context("spawn").Pool(os.cpu_count()) as pool:
        for name, made, t, c in pool.imap(job, tasks):
            print(f"{name}: {made} frames rendered", flush=True)
            if "_drive_00" in name:
                total, count = total + t, count + c
    if args.only is None and args.frames is None:
        mean = np.divide(total, count, out=np.zeros((H, W)), where=count > 0).astype(np.float32)
        np.save(args.out / "mean_inverse_depth.npy", mean)
        page.write_text(readme(args.seed, args.samples), encoding="utf-8")
    (args.out / DATE).mkdir(parents=True, exist_ok=True)
    (args.out / DATE / "calib_cam_to_cam.txt").write_text(calibration(), encoding="utf-8")


if __name__ == "__main__":
    main()
