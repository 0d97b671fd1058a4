"""A page over a small network, served from this process."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import camlucida
from camlucida.engine.reading import Outputs

NAMES = ("<img src=x onerror=document.title='hurt'>", "tabby, tabby cat", "tiger cat", "dog\u202e")


def small_model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(NAMES)),
    ).eval()  # fmt: skip
    preprocess = camlucida.Preprocess(size=(32, 32), resize=36)
    return camlucida.LoadedModel(net, "small", preprocess, NAMES)


class Heads(nn.Module):
    """The small network with three outputs: classes, two classes, and positions that have no gradient."""

    def __init__(self, body, size):
        super().__init__()
        self.body = body[:-1]
        self.kind, self.age = body[-1], nn.Linear(size, 2)

    def forward(self, images):
        found = self.body(images)
        return {"kind": self.kind(found), "more": (self.age(found), found.argmax(1))}


def model_with_heads():
    model = small_model()
    return replace(model, module=Heads(model.module, 16).eval(), outputs=Outputs(head="kind"))


@dataclass
class Served:
    """A running page.

    Attributes:
        studio: what is behind it.
        port: where it listens.
        secret: what its page holds.
    """

    studio: Any
    port: int
    secret: str = ""

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body of an answer; the headers of the page's own requests unless given."""
        own = {"Host": f"127.0.0.1:{self.port}", "Origin": self.address, "x-camlucida": self.secret}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {k: v for k, v in own.items() if v is not None}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def upload(self, content, name="cat.png"):
        status, _, body = self.ask("POST", "/api/photos", content, x_name=name)
        return status, json.loads(body) if status == 200 else body.decode()

    def work(self, kind, **asked):
        """All events of a job."""
        status, _, body = self.ask("POST", f"/api/jobs/{kind}", json.dumps(asked))
        assert status == 200, body
        return [json.loads(part[6:]) for part in body.decode().split("\n\n") if part]


def serving(studio, **how):
    """Serves it in a thread: the page, and what ends it."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from camlucida.app.guard import LOOPBACK, hosts_of
    from camlucida.app.serve import _listen
    from camlucida.app.server import application

    listening = _listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = application(studio, hosts_of(LOOPBACK, port), **how)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def end():
        studio.desk.close(wait=True)
        server.should_exit = True
        thread.join(10)
        listening.close()

    return Served(studio, port, app.secret), end


def noise(size=(64, 48), kind="PNG"):
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, kind)
    return buffer.getvalue()
