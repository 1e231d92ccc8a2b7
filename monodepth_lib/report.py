"""Notebook 06, behind it: the results of an evaluation, as text and as files."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .depth import METRICS, Protocol
from .files import atomic_write

NO_TRUTH = "no pair has ground truth, so there is nothing to measure"


@dataclass
class Report:
    """The results of `evaluate`. `settings` (weights, data folder, ...) may be added and are written with them."""

    protocol: Protocol
    drives: list[str]
    cameras: list[str]
    truth: list[str]  # the kinds of truth
    truth_folders: list[str]
    images: int
    notes: list[str] = field(default_factory=list)
    means: list[dict] = field(default_factory=list)  # one row per answer
    standard_deviations: list[dict] = field(default_factory=list)
    by_distance: list[dict] = field(default_factory=list)
    per_image: list[dict] = field(default_factory=list)
    confidence: dict = field(default_factory=dict)  # AUSE and AURG of the flipped answer, means over the images
    settings: dict = field(default_factory=dict)

    def text(self) -> str:
        """All results as text: what was measured, means, standard deviations, bands of distance, notes."""
        if not self.means:
            return NO_TRUTH
        scaling = "median scaling ON" if self.protocol.median_scaling else "no median scaling"
        measured = f"{self.images} images, {' and '.join(self.cameras)} cameras, truth: {' and '.join(self.truth)}"
        measured += f"; up to {self.protocol.cap:g} m, crop {self.protocol.crop}, {scaling}"
        parts = [measured, table(self.means, "mean over images")]
        parts.append(table(self.standard_deviations, "standard deviation over images"))
        if self.protocol.median_scaling:
            said = "each prediction was multiplied by median(truth) / median(prediction), mean ± deviation over images:"
            rows = zip(self.means, self.standard_deviations, strict=True)
            parts.append("\n".join([said, *(f"  {m['name']}: {m['ratio']:.3f} ± {s['ratio']:.3f}" for m, s in rows)]))
        for low, high in dict.fromkeys((band["from"], band["to"]) for band in self.by_distance):
            bands = [band for band in self.by_distance if (band["from"], band["to"]) == (low, high)]
            counts = f"{bands[0]['pixels']} pixels in {bands[0]['images']} images"
            parts.append(table(bands, f"{low:g} to {high:g} m, {counts}"))
        if self.confidence:
            said = "confidence by the flipped answer, on Abs Rel: AUSE {ause:.3f} (lower is better, 0 the best), "
            parts.append((said + "AURG {aurg:.3f} (higher is better, 0 is chance)").format(**self.confidence))
        if self.notes:
            parts.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(parts)

    def write(self, output_dir: str | Path) -> tuple[Path, Path]:
        """Writes `metrics.json` (everything) and `metrics.csv` (one line per image and answer, with all settings).

        Returns both paths. Raises OSError naming a file that cannot be written; the old file then stays. An
        empty report writes nothing.
        """
        paths = Path(output_dir) / "metrics.json", Path(output_dir) / "metrics.csv"
        if not self.means:
            return paths
        content = asdict(self)
        settings = {**content.pop("settings"), **content.pop("protocol")}
        settings["cap_m"] = settings.pop("cap")
        words = {key: " ".join(map(str, v)) if isinstance(v, list | tuple) else v for key, v in settings.items()}
        words |= {"cameras": " ".join(self.cameras), "truth": " ".join(self.truth), "images": self.images}
        lines = [{**row, **words} for row in self.per_image]
        with atomic_write(paths[0]) as partial:
            partial.write_text(
                json.dumps({**settings, **content}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        with atomic_write(paths[1]) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        return paths


def table(rows: list[dict], title: str = "") -> str:
    """Rows of metrics as aligned text, three decimals; without rows, a sentence that says why."""
    if not rows:
        return NO_TRUTH
    width = max(len(title), *(len(row["name"]) for row in rows))
    lines = [f"{title:<{width}}" + "".join(f"{head:>10}" for head in METRICS.values())]
    lines += [f"{row['name']:<{width}}" + "".join(f"{row[key]:>10.3f}" for key in METRICS) for row in rows]
    return "\n".join(lines)
