"""From drives to batches: order, seeds, workers and files that cannot be read."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import make_drive, make_stereo_2015, shifted_pair, side_loader, to_picture

from monodepth_lib import data, kitti
from monodepth_lib.cache import CachedPairs, prepare_cache, write_cache
from monodepth_lib.data import match_blocks, set_epoch
from monodepth_lib.devices import pick_device, pick_precision, to_device
from monodepth_lib.files import read_picture

SIZE = (16, 48)


def batches(data_dir, mode="train", epoch=0, **options):
    loader = side_loader(data_dir, mode, size=SIZE, **{"batch_size": 4, **options})
    set_epoch(loader, epoch)
    return list(loader)


def names(batches):
    return [name for batch in batches for name in batch["name"]]


def same(one, other):
    return names(one) == names(other) and all(
        torch.equal(a[view], b[view]) for a, b in zip(one, other, strict=True) for view in ("left_image", "right_image")
    )


# --- batches ---


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_a_batch_is_float32_nchw_in_0_to_1_with_names(data_dir, mode):
    batch = batches(data_dir, mode)[0]
    for view in ("left_image", "right_image"):
        assert batch[view].dtype == torch.float32
        assert batch[view].shape == (4, 3, *SIZE)
        assert batch[view].min() >= 0 and batch[view].max() <= 1
    assert all(name.startswith("2020_01_01_drive_000") for name in batch["name"])


def test_val_and_test_come_in_order_and_whole(data_dir):
    assert names(batches(data_dir, "val")) == [f"2020_01_01_drive_0003_sync/{n:010d}" for n in range(9)]
    assert names(batches(data_dir, "test", batch_size=100)) == [
        f"2020_01_01_drive_0004_sync/{n:010d}" for n in range(5)
    ]


def test_training_is_shuffled_and_leaves_out_the_smaller_last_batch(data_dir):
    drawn = names(batches(data_dir, batch_size=4))
    assert len(drawn) == len(set(drawn)) == 8
    assert drawn != sorted(drawn)


def test_training_order_and_augmentation_repeat_with_the_seed(data_dir):
    assert same(batches(data_dir, seed=3), batches(data_dir, seed=3))
    one, other = (batches(data_dir, seed=seed, batch_size=9)[0] for seed in (3, 4))
    assert one["name"] != other["name"]
    first, second = (batch["left_image"][np.argsort(batch["name"])] for batch in (one, other))
    assert (first != second).flatten(1).any(1).sum() >= 3


def test_epochs_differ_in_order_and_in_augmentation(data_dir):
    first, second = batches(data_dir, epoch=0), batches(data_dir, epoch=1)
    assert names(first) != names(second)
    again = batches(data_dir, epoch=1)
    assert same(second, again)
    loader = side_loader(data_dir, "train", size=SIZE, batch_size=9)
    pictures = []
    for epoch in (0, 1):
        set_epoch(loader, epoch)
        batch = next(iter(loader))
        order = np.argsort(batch["name"])
        pictures.append(batch["left_image"][order])
    changed = (pictures[0] != pictures[1]).flatten(1).any(1)
    assert changed.sum() >= 3


def test_augmentation_differs_from_pair_to_pair(tmp_path):
    drive = make_drive(tmp_path / "train/2020_01_01_drive_0001_sync", range(1))
    for folder in ("image_02", "image_03"):
        whole = (drive / folder / "data/0000000000.png").read_bytes()
        for frame in range(1, 8):
            (drive / folder / f"data/{frame:010d}.png").write_bytes(whole)
    drawn = batches(tmp_path, batch_size=8)[0]["left_image"]
    assert len(torch.unique(drawn.flatten(1), dim=0)) >= 4  # eight times the same picture on disk


def test_workers_give_the_very_batches_of_no_workers(data_dir):
    assert same(batches(data_dir, seed=1, epoch=2), batches(data_dir, seed=1, epoch=2, workers=2))


def test_loading_leaves_the_global_random_state_alone(data_dir):
    dataset = side_loader(data_dir, "train", size=SIZE, batch_size=4).dataset
    before = torch.get_rng_state()
    dataset[0]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cached", [False, True])
def test_a_test_loader_may_read_left_views_alone(data_dir, tmp_path, monkeypatch, cached):
    options = {"cache_dir": tmp_path} if cached else {}
    both = batches(data_dir, "test", **options)
    read = []
    monkeypatch.setattr(data, "read_picture", lambda path: read.append(path) or read_picture(path))
    left = batches(data_dir, "test", left_only=True, **options)
    assert names(left) == names(both) and "right_image" not in left[0]
    assert torch.equal(left[0]["left_image"], both[0]["left_image"])
    assert not any("image_03" in str(path) for path in read)
    with pytest.raises(ValueError, match="left_only is for prediction"):
        batches(data_dir, "train", left_only=True)


def test_grey_cameras_and_stereo_2015_load(tmp_path):
    make_drive(tmp_path / "test/2020_01_01_drive_0001_sync", range(2), cameras="grey")
    make_stereo_2015(tmp_path / "scenes/stereo_2015")
    grey = batches(tmp_path, "test", cameras="grey")
    assert len(names(grey)) == 2
    assert names(batches(tmp_path / "scenes", "test", drives=["stereo_2015"]))[0] == "stereo_2015/000000_10"


@pytest.mark.parametrize("cached", [False, True])
def test_too_little_shared_memory_is_said_with_the_remedy(data_dir, tmp_path, monkeypatch, cached):
    """As a container with a /dev/shm of a megabyte ends; the words are torch's."""
    torchs = "unable to allocate shared memory(shm) for file </torch_29525_1_0>: No space left on device (28)"
    dataset = CachedPairs if cached else data.StereoPairs

    def fail(*_):
        raise RuntimeError(torchs)

    monkeypatch.setattr(dataset, "__getitems__", fail, raising=False)
    with pytest.raises(RuntimeError, match=r"2 workers have too little shared memory in /dev/shm: use workers=0, or "):
        batches(data_dir, "test", workers=2, cache_dir=tmp_path if cached else None)
    torchs = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        batches(data_dir, "test", workers=2, cache_dir=tmp_path if cached else None)


def test_a_worker_names_a_damaged_picture_in_one_sentence(tmp_path):
    pairs, _, _ = drive_of(tmp_path)
    pairs[1].left.write_bytes(pairs[1].left.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"^\S+0000000001\.png cannot be read as a picture .*") as raised:
        list(data.prepare_dataloader(pairs, size=SIZE, workers=1))
    assert "\n" not in str(raised.value)


# --- refused values ---


def test_a_test_set_may_be_smaller_than_a_batch(data_dir):
    assert len(side_loader(data_dir, "test", batch_size=10)) == 1


@pytest.mark.parametrize(
    "cuda, mps, expected", [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    assert pick_device("auto").type == expected
    for name, there in (("cuda:1", cuda), ("cuda:2", False), ("mps", mps)):
        if there:
            assert pick_device(name) == torch.device(name)
        else:
            with pytest.raises(ValueError, match=f"device is '{name}', but torch .* has no such GPU here"):
                pick_device(name)
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device is 'gpu'; it must be 'auto', 'cpu'"):
        pick_device("gpu")


@pytest.mark.parametrize(
    "kind, has, expected", [("cuda", True, "bf16"), ("cuda", False, "fp16"), ("mps", True, "float32")]
)
def test_auto_takes_bf16_where_the_gpu_has_it(monkeypatch, kind, has, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has)
    assert pick_precision("auto", torch.device(kind)) == expected


def test_a_torch_that_cannot_warp_on_apples_gpu_takes_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "__version__", "2.12.1")
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match=r"torch 2\.12\.1 has no such GPU here"):
        pick_device("mps")


def test_to_device_orders_images_for_convolutions_and_keeps_names():
    moved = to_device({"left_image": torch.rand(2, 3, 4, 5), "name": ["a", "b"]}, "cpu")
    assert moved["left_image"].is_contiguous(memory_format=torch.channels_last)
    assert moved["name"] == ["a", "b"]


# --- pictures ---


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path, mode):
    path = tmp_path / ("0.jpg" if mode == "CMYK" else "0.png")
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
    picture = read_picture(path)
    assert (picture.mode, picture.size) == ("RGB", (6, 4))
    assert np.asarray(picture).min() >= 254


def test_palette_and_transparent_pictures_keep_their_colours(tmp_path):
    red = Image.new("RGBA", (6, 4), (200, 30, 10, 0))
    red.save(tmp_path / "rgba.png")
    red.convert("RGB").quantize(4).save(tmp_path / "palette.png")
    for name in ("rgba.png", "palette.png"):
        assert np.abs(np.asarray(read_picture(tmp_path / name), dtype=int) - (200, 30, 10)).max() <= 3


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)).save(tmp_path / "0.png")
    assert np.asarray(read_picture(tmp_path / "0.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("down", [0, 3])
def test_row_search_finds_the_shift_and_the_row(down):
    left, right = (view[0] for view in shifted_pair(24, 96, 7))
    right = right.roll(down, dims=1)  # a right camera that looks `down` rows higher
    least, shift = match_blocks(left, right, down, furthest=12)
    inner = slice(8, -8), slice(24, -8)
    assert least.shape == shift.shape == (24, 96)
    assert (shift[inner] == 7).all()
    assert least[inner].max() < 1e-5
    assert match_blocks(left, right, down + 2, furthest=12)[0][inner].mean() > 0.01


# --- pictures prepared once ---


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_prepared_pictures_give_the_very_same_batches(data_dir, tmp_path, augment, workers):
    options = dict(augment=augment, seed=3)
    for epoch in (0, 1):
        plain = batches(data_dir, epoch=epoch, **options)
        assert same(plain, batches(data_dir, epoch=epoch, cache_dir=tmp_path, workers=workers, **options))
    assert same(batches(data_dir, "val"), batches(data_dir, "val", cache_dir=tmp_path))


def drive_of(tmp_path, frames=4):
    pairs = kitti.find_pairs(make_drive(tmp_path / "2020_01_01_drive_0009_sync", range(frames)))
    said = []
    return pairs, tmp_path / "cache", said


def test_preparation_says_its_size_first_and_is_done_once(tmp_path):
    pairs, cache, said = drive_of(tmp_path)
    path = prepare_cache(pairs, SIZE, cache, log=said.append)
    assert len(said) == 1 and "4 pairs of 16x48" in said[0] and "GB in" in said[0]
    before = path.stat().st_mtime_ns
    assert prepare_cache(pairs, SIZE, cache, log=said.append) == path
    assert len(said) == 1 and path.stat().st_mtime_ns == before


def test_a_changed_picture_or_size_makes_prepared_ones_stale(tmp_path):
    pairs, cache, said = drive_of(tmp_path)
    path = prepare_cache(pairs, SIZE, cache, log=said.append)
    to_picture(torch.zeros(1, 3, 32, 96)).save(pairs[2].right)
    renewed = prepare_cache(pairs, SIZE, cache, log=said.append)
    assert np.load(renewed)[2, 1].max() == 0 and np.load(renewed)[1, 1].max() > 0
    assert not path.exists()  # the stale one does not fill the disk
    assert prepare_cache(pairs, (8, 24), cache, log=said.append) != renewed and renewed.exists()


@pytest.mark.parametrize("cut", [10, 200, 2.5])  # in the header, in the first pair, in the third
def test_a_killed_preparation_goes_on_where_it_stopped(tmp_path, cut, monkeypatch):
    pairs, cache, said = drive_of(tmp_path)
    whole = prepare_cache(pairs, SIZE, cache, log=said.append)
    values = np.load(whole)
    bytes_a_pair = values[0].size
    start = whole.stat().st_size - values.size
    kept = int(start + cut * bytes_a_pair) if isinstance(cut, float) else cut
    whole.with_suffix(".part").write_bytes(whole.read_bytes()[:kept])
    whole.unlink()
    read = []
    monkeypatch.setattr(data, "read_picture", lambda path: read.append(path) or read_picture(path))
    assert np.array_equal(np.load(prepare_cache(pairs, SIZE, cache, log=said.append)), values)
    assert len(read) == (4 if isinstance(cut, float) else 8)
    assert [file.suffix for file in cache.iterdir() if not file.name.startswith(".")] == [".npy"]


def test_of_two_runs_one_prepares_and_the_other_waits(tmp_path, monkeypatch):
    pairs, cache, said = drive_of(tmp_path)
    written = []

    def slowly(*arguments):
        written.append(time.sleep(0.2))
        write_cache(*arguments)

    monkeypatch.setattr("monodepth_lib.cache.write_cache", slowly)
    with ThreadPoolExecutor(2) as runs:
        paths = list(runs.map(lambda _: prepare_cache(pairs, SIZE, cache, log=said.append), range(2)))
    assert paths[0] == paths[1] and paths[0].is_file() and len(written) == 1


def test_preparation_without_room_is_refused_before_and_named_during(tmp_path, monkeypatch, full_disk):
    pairs, cache, said = drive_of(tmp_path)
    with full_disk(), pytest.raises(OSError, match=r"\.npy could not be written .* free space"):
        prepare_cache(pairs, SIZE, cache, log=said.append)
    assert not list(cache.glob("*.npy"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"0\.00 GB are free"):
        prepare_cache(pairs, (1024, 2048), cache, log=said.append)


def test_a_broken_picture_stops_the_preparation_by_name_and_loses_nothing(tmp_path):
    pairs, cache, said = drive_of(tmp_path)
    whole = pairs[3].left.read_bytes()
    pairs[3].left.write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"0000000003\.png cannot be read"):
        prepare_cache(pairs, SIZE, cache, log=said.append)
    assert not list(cache.glob("*.npy"))
