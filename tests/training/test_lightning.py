"""Maps over a Lightning training, and metrics of maps in the manner of torchmetrics."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import camlucida

lightning = pytest.importorskip("lightning.pytorch")
pytest.importorskip("torchmetrics")


def _net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class _Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = _net()
        self.modes = []

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, _):
        self.modes.append(self.training)
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _trained(folder, callback, **options):
    data = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8) % 3), batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", callbacks=[callback], default_root_dir=folder, num_sanity_val_steps=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    module = _Module()
    trainer.fit(module, data, data)
    return module


def test_pictures_are_files_where_no_logger_takes_them(tmp_path):
    from camlucida.training.lightning import MapLogger

    module = _trained(
        tmp_path, MapLogger(torch.rand(2, 3, 16, 16), every=2, method="hirescam"), logger=False
    )
    files = sorted(path.name for path in (tmp_path / "camlucida-maps").iterdir())
    assert files == ["step-000002.png", "step-000006.png"]
    assert all(module.modes)


def test_pictures_go_to_the_logger_that_takes_them(tmp_path):
    from camlucida.training.lightning import MapLogger

    taken = []

    class Kept(lightning.loggers.logger.DummyLogger):
        def log_image(self, key, images, step):
            taken.append((key, [image.size for image in images], step))

    _trained(
        tmp_path,
        MapLogger(torch.rand(2, 3, 16, 16), model=lambda module: module.net),
        logger=Kept(),
    )
    assert taken == [("maps", [(16, 16)] * 2, step) for step in (2, 4, 6)]
    assert not (tmp_path / "camlucida-maps").exists()


def test_a_tensorboard_like_experiment_takes_pictures():
    from camlucida.training.lightning import MapLogger

    shapes = []
    experiment = SimpleNamespace(
        add_image=lambda name, image, step, dataformats: shapes.append(
            (name, image.shape, step, dataformats)
        )
    )
    found = camlucida.explain(_net(), torch.rand(1, 3, 16, 16))
    assert MapLogger(torch.rand(1, 3, 16, 16))._log(
        SimpleNamespace(experiment=experiment), found, 7
    )
    assert shapes == [("maps/0", (16, 16, 3), 7, "HWC")]


def test_the_mean_over_batches_is_that_over_all_images():
    from camlucida.metrics.torchmetrics import MapMetric

    net, images, masks = _net(), torch.rand(6, 3, 16, 16), torch.zeros(6, 16, 16, dtype=torch.bool)
    masks[:4, 4:12, 4:12] = True  # two images have no object, and do not count
    parts, whole = MapMetric("energy_pointing"), MapMetric("energy_pointing")
    for i in (0, 3):
        parts.update(net, images[i : i + 3], masks=masks[i : i + 3])
    whole.update(net, images, masks=masks)
    assert float(whole.count[0]) == 4
    assert torch.allclose(parts.compute(), whole.compute())
    parts.reset()
    assert float(parts.count[0]) == 0


def test_a_metric_with_several_numbers_has_a_mean_for_each():
    from camlucida.metrics.torchmetrics import MapMetric

    metric = MapMetric("iou:thresholds=0.3/0.5", method="layercam")
    metric.update(_net(), torch.rand(2, 3, 16, 16), boxes=[torch.tensor([[2.0, 2, 9, 9]])] * 2)
    assert set(metric.compute()) == {"iou@0.3", "iou@0.5", "iou_area"}


def test_metrics_that_need_another_method_are_refused():
    from camlucida.metrics.torchmetrics import MapMetric

    with pytest.raises(camlucida.CamlucidaError, match=r"benchmark\.evaluate"):
        MapMetric("ssim")


def test_what_a_metric_needs_and_was_not_given_is_asked_for():
    from camlucida.metrics.torchmetrics import MapMetric

    with pytest.raises(camlucida.CamlucidaError, match="energy_pointing needs masks"):
        MapMetric("energy_pointing").update(_net(), torch.rand(2, 3, 16, 16))
