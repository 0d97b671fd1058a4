"""``camlucida metrics``: every metric, as text and as JSON."""

import json

import pytest
import typer
from typer.testing import CliRunner

from camlucida.cli.listings import metrics
from camlucida.metrics import list_metrics


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(metrics)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_the_list_names_every_metric_and_fits_100_columns(run):
    result = run()
    assert result.exit_code == 0
    for row in list_metrics():
        assert any(line.startswith(row.name + " ") for line in result.output.splitlines())
        assert row.source[:20] in result.output
    assert max(map(len, result.output.splitlines())) <= 100
    assert "``" not in result.output


def test_json_has_every_number(run):
    rows = json.loads(run("--json").output)
    assert [row["name"] for row in rows] == [row.name for row in list_metrics()]
    by_name = {row["name"]: row for row in rows}
    assert by_name["iou"]["options"]["thresholds"] == [0.3, 0.5, 0.7]
    assert [n["name"] for n in by_name["iou"]["numbers"]][-1] == "iou_area"
    assert by_name["infidelity"]["range"] == [0.0, None]
    assert by_name["box_iou"]["needs"] == ["boxes", "labels", "logits"]
