"""What needs an NVIDIA GPU: the same answers there as on the CPU, in half precision, and a training that resumes."""

from __future__ import annotations

import pytest
import torch
from synthetic import make_drive
from test_training import Stopped, stopping

from monodepth_lib import kitti, testing, training
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.fast import faster_prediction, faster_training
from monodepth_lib.losses import MonodepthLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")


@pytest.mark.parametrize("fast", [False, True])
def test_answers_are_those_of_the_cpu(tiny, fast):
    model, images = tiny(width=8).eval(), torch.rand(2, 3, 64, 96)
    torch.nn.init.normal_(model.decoder.heads[3].conv.weight, std=0.5)  # a fresh model says nearly the same everywhere
    there = (faster_prediction(model) if fast else model).to("cuda")
    answers = testing.predict(there, images.cuda())
    for one, other in zip(answers, testing.predict(model.cpu(), images), strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_training_goes_on_where_it_was(tiny, tmp_path, precision):
    make_drive(tmp_path / "train/drive", range(8))
    loader = prepare_dataloader(kitti.select_pairs(tmp_path, "train"), train=True, size=(32, 96), batch_size=4)
    settings = training.settings("tiny", epochs=3, precision=precision)
    options = dict(device="cuda", log=lambda _: None)
    with pytest.raises(Stopped):
        training.train(tiny(), loader, None, tmp_path / "run", settings, **{**options, "log": stopping(1)})
    first = torch.load(tmp_path / "run/last.pt", weights_only=True)["history"]
    history = training.train(tiny(), loader, None, tmp_path / "run", settings, resume=True, **options)
    assert len(history) == 3 and history[:1] == first  # its seconds, too: it was not trained again


def test_the_tuned_step_has_the_plain_gradient(tiny):
    views, gradients = torch.rand(2, 2, 3, 64, 96, device="cuda"), []
    for fast in (False, True):
        model, loss = tiny(width=8).cuda(), MonodepthLoss()
        with faster_training(model if fast else torch.nn.Identity(), loss if fast else torch.nn.Identity()):
            loss(model(views[0]), *views)[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[0].norm()
