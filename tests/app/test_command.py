"""``camlucida app`` as it is typed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from reference.commands import run

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

FACTORY = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *pooled, nn.Linear(8, 3))
"""


@pytest.fixture
def started(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    options = ["--model", "net.py:make", "--size", "32", "--no-browser", "--port", "0"]
    page = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "camlucida", "app", *options],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    line = page.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line + page.stderr.read()
    yield page, int(found[1])
    page.kill()
    page.wait()


@pytest.mark.parametrize("busy", [False, True])
def test_ctrl_c_ends_it_cleanly(started, busy):
    page, port = started
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    secret = re.search(
        'camlucida-secret" content="([^"]+)"', connection.getresponse().read().decode()
    )[1]
    if busy:
        question = json.dumps({"photo": "sample:lion", "methods": ["fame:iterations=100000"]})
        own = {"Origin": f"http://127.0.0.1:{port}", "x-camlucida": secret}
        connection.request("POST", "/api/jobs/explain", question, own)
        answer = connection.getresponse()
        while b"progress" not in answer.readline():
            pass
    page.send_signal(signal.SIGINT)
    out, err = page.communicate(timeout=30)
    assert page.returncode == 0
    assert "The page is closed." in out
    assert "Traceback" not in err


def test_a_port_in_use_is_said(tmp_path, capsys):
    (tmp_path / "net.py").write_text(FACTORY)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, _, err = run(
            capsys,
            "app",
            "--model",
            f"{tmp_path}/net.py:make",
            "--size",
            "32",
            "--no-browser",
            "--port",
            port,
        )
    assert code == 2
    assert "cannot be listened on" in err[-1]
    assert "--port" in err[-1]


def test_an_audit_that_is_none_is_said(tmp_path, capsys):
    (tmp_path / "net.py").write_text(FACTORY)
    code, _, err = run(
        capsys,
        "app",
        "--model",
        f"{tmp_path}/net.py:make",
        "--size",
        "32",
        "--no-browser",
        "--audit",
        tmp_path,
    )
    assert code == 2
    assert "camlucida audit all --out" in err[-1]
