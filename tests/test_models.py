"""What lies in models/: every file opens by its name, without network and pickle, and is as good as its card says."""

from __future__ import annotations

import json
import pickle
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from synthetic import shifted_pair, to_picture, write_calibration, write_uint16

from monodepth_lib import checkpoints, depth, kitti, networks, pictures, testing
from research import train
from research.batch import Pictures
from research.recipe import Recipe, Row
from tools import make_model

ROOT = Path(__file__).resolve().parent.parent

SAMPLE = ROOT / "data/sample"
NAMES = sorted(path.stem for path in (ROOT / "models").glob("*.safetensors"))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def card(name):
    return json.loads((ROOT / f"models/{name}.json").read_text())


def test_the_class_has_its_model():
    assert "unet_sample" in NAMES


def test_it_opens_without_network_and_pickle(name, card, monkeypatch):
    checkpoints.load_model(name)  # what is imported for it derives classes of its own from `socket.socket`
    for module, forbidden in ((socket, "socket"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, forbidden, lambda *_, **__: pytest.fail("network or pickle"))
    model = checkpoints.load_model(name)
    assert networks.count_parameters(model) == card["parameters"] <= 10e6
    assert list(model.size) == card["picture size (height, width)"]


def test_it_is_small_and_stored_as_its_card_says(name, card):
    path = ROOT / f"models/{name}.safetensors"
    assert path.stat().st_size <= 20e6
    kinds = {str(tensor.dtype) for tensor in safetensors.torch.load_file(path).values() if tensor.ndim}
    assert kinds == {f"torch.{card['stored as']}"}


def test_a_picture_of_the_sample(name):
    """Near at the bottom, far in the middle: a street, whatever it was trained on."""
    picture = sorted((SAMPLE / "test").glob("*/image_02/data/*"))[0]
    disparity = pictures.load(name).predict(picture).disparity
    assert np.isfinite(disparity).all() and disparity.min() > 0 and disparity.max() < networks.MAX_DISPARITY
    rows = len(disparity)
    assert disparity[-rows // 8 :].mean() > 1.5 * disparity[rows * 2 // 5 : rows // 2].mean()


def test_it_is_as_good_as_its_card_says(name, card):
    """Every metric on the sample's test drives, within 1 %."""
    said = next(found for found in card["measurements"] if found["command"].endswith("--data data/sample"))
    pairs = kitti.select_pairs(SAMPLE, "test")
    rows = testing.score(pairs, make_model.disparities_of(name, pairs))
    assert len(rows) == said["images"]
    for kind, average in (("mean", np.mean), ("standard deviation over images", np.std)):
        row = testing.mean_row(rows, "", average)
        for key in depth.METRICS:
            assert row[key] == pytest.approx(said[kind][key], rel=0.01, abs=1e-4), (kind, key)


def test_the_card_says_all_that_a_user_asks(name, card):
    asked = {"training data", "licence", "command", "seed", "hours", "machine", "not good for", "settings"}
    assert asked <= {*card} and card["machine"]["commit"]
    assert (ROOT / f"models/{name}.md").read_text() == make_model.readable(card)


def test_a_finished_run_becomes_unet_kitti(data_dir, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "JUDGED_SIZE", (32, 96))
    monkeypatch.setattr(make_model, "MODELS", tmp_path / "models")
    monkeypatch.setattr(make_model, "SAMPLE", str(data_dir))
    monkeypatch.setattr(make_model, "GIF_DRIVE", "2020_01_01_drive_0004_sync")
    (tmp_path / "models").mkdir()
    for frame in range(3):
        views = shifted_pair(32, 96, 4, frame)
        for folder, view in zip(("image_0", "image_1"), views, strict=True):
            (tmp_path / "stereo_2012" / folder).mkdir(parents=True, exist_ok=True)
            to_picture(view).save(tmp_path / "stereo_2012" / folder / f"{frame:06d}_10.png")
        write_uint16(tmp_path / f"stereo_2012/disp_noc/{frame:06d}_10.png", np.full((32, 96), 4.0))
    write_calibration(tmp_path / "stereo_2012/calib_cam_to_cam.txt", focal=100.0, grey_baseline=0.288, width=96)
    where = Pictures(data_dir, cache_dir=tmp_path / "cache", cameras="colour")
    row = Row("base", Recipe(base_channels=2, size=(32, 96), batch_size=2))
    train.train(row, where, tmp_path / "run", train.Budget(steps=3), log=lambda _: None)
    make_model.make_kitti(tmp_path / "run", str(tmp_path))
    card = json.loads((tmp_path / "models/unet_kitti.json").read_text())
    assert [found["images"] for found in card["measurements"]] == [3, 5]
    assert card["measurements"][0]["command"].endswith("--data KITTI/stereo_2012 --cameras grey")
    assert card["measurements"][1]["command"].endswith(f"--data {data_dir}")  # the sample is not KITTI's
    assert re.search(r", 9 pairs of 2020_.*; it learnt from photographs alone", card["training data"])
    assert str(tmp_path) not in json.dumps(card)  # no path of this machine
    assert "train base --seed 0 --steps 3 --threads" in card["command"] and "--cameras colour" in card["command"]
    assert card["steps"] == 3 and card["settings"]["base_channels"] == 2 and "NC" in card["licence"]
    with Image.open(tmp_path / "models/unet_kitti.png") as maps, Image.open(tmp_path / "models/unet_kitti.gif") as gif:
        assert maps.size == (2 * 96 + 4, 4 * 32 + 3 * 4) and gif.n_frames == 3


def test_float32_where_float16_would_move_a_metric(monkeypatch, tmp_path):
    """`store` measures before and after, and keeps what does not move."""
    monkeypatch.setattr(make_model, "MODELS", tmp_path)
    trained, moves = tmp_path / "trained.safetensors", {"float16": 1.02}
    checkpoints.save_model(networks.get_model("unet", base_channels=2), trained, (32, 96))

    def measure(weights, folder):
        with safetensors.safe_open(tmp_path / f"{Path(weights).stem}.safetensors", framework="pt") as file:
            kind = str(file.get_tensor("decoder.heads.0.conv.weight").dtype).removeprefix("torch.")
        return {"mean": dict.fromkeys(depth.METRICS, moves.get(kind, 1.0))}

    monkeypatch.setattr(make_model, "measure", measure)
    assert make_model.store("small", trained, ("drives",))[0] == "float32"
    moves["float16"] = 1.009
    assert make_model.store("small", trained, ("drives",))[0] == "float16"
