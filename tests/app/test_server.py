"""The server behind the page: who is answered, what is taken, and that the answers are the library's."""

from __future__ import annotations

import io
import json
import shlex
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import camlucida
from camlucida.app.jobs import Desk
from camlucida.app.question import Written
from camlucida.app.studio import Studio
from camlucida.common.errors import CamlucidaError
from reference.pages import NAMES, model_with_heads, noise, serving, small_model


def test_the_page_runs_no_script_but_its_own_files(served):
    status, headers, body = served.ask("GET", "/")
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert status == 200
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    text = body.decode()
    assert "<script>" not in text
    assert "style=" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"x_camlucida": "guessed"}, 403),
        ({"x_camlucida": None}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
    ],
)
def test_other_pages_are_refused(served, headers, status):
    assert served.ask("POST", "/api/photos", noise(), **headers)[0] == status


def test_another_page_does_not_even_read(served):
    assert served.ask("GET", "/api/photos/sample:lion", sec_fetch_site="cross-site")[0] == 403
    assert served.ask("GET", "/api/photos/sample:lion", Host="evil.example")[0] == 421


def test_a_token_is_asked_for_once(studio):
    page, end = serving(studio, token="t" * 16)
    try:
        assert page.ask("GET", "/")[0] == 401
        assert page.ask("GET", "/?token=wrong")[0] == 401
        status, headers, _ = page.ask("GET", "/?token=" + "t" * 16)
        assert (status, headers["location"]) == (303, "/")
        assert "HttpOnly" in headers["set-cookie"]
        assert "SameSite=strict" in headers["set-cookie"]
        cookie = headers["set-cookie"].partition(";")[0]
        assert page.ask("GET", "/", cookie=cookie)[0] == 200
    finally:
        end()


def test_other_machines_need_a_token():
    with pytest.raises(CamlucidaError, match="--token"):
        camlucida.app.serve(small_model(), host="0.0.0.0")  # noqa: S104
    for token in ("short", "a;b" * 8, "ü" * 20):
        with pytest.raises(CamlucidaError, match="16 to 200 letters"):
            camlucida.app.serve(small_model(), token=token)


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/../page.js", "/static/%2e%2e/server.py", "/static/app.html", "/api/photos/../../etc/passwd"],
)  # fmt: skip
def test_no_path_leads_to_another_file(served, path):
    assert served.ask("GET", path)[0] == 404


def test_a_photo_is_explained_as_the_library_does(served):
    status, photo = served.upload(noise(), "../../<b>cat.png")
    assert (status, photo["name"]) == (200, "<b>cat.png")
    events = served.work(
        "explain", photo=photo["key"], methods=["gradcam", "saliency"], **{"class": "1"}
    )
    maps = {e["method"]: e for e in events if e["event"] == "map"}
    picture = served.studio.album[photo["key"]].picture
    for method in ("gradcam", "saliency"):
        found = camlucida.explain(small_model(), picture, method=method, target=1)
        _, _, body = served.ask("GET", f"/api/values/{maps[method]['key']}")
        shown = np.frombuffer(body, "<f4").reshape(maps[method]["size"])
        np.testing.assert_array_equal(shown, found.numpy()[0])
        assert maps[method]["explained"] == found.explained[0]
    assert events[-1]["event"] == "done"


def test_what_is_taken_along_is_what_was_shown(served):
    _, photo = served.upload(noise())
    events = served.work("explain", photo=photo["key"], methods=["gradcam", "saliency"])
    keys = [e["key"] for e in events if e["event"] == "map"]
    query = "&".join(f"key={key}" for key in keys)
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("npz", b"PK"), ("json", b"{")):
        status, headers, body = served.ask("GET", f"/api/files/{kind}?{query}")
        assert status == 200
        assert body.startswith(start)
        assert headers["content-disposition"] == f"attachment; filename*=utf-8''cat.{kind}"
    _, _, body = served.ask("GET", f"/api/files/npz?key={keys[0]}")
    _, _, values = served.ask("GET", f"/api/values/{keys[0]}")
    saved = np.load(io.BytesIO(body))["maps"]
    np.testing.assert_array_equal(saved.ravel(), np.frombuffer(values, "<f4"))


def test_the_python_lines_make_the_same_maps(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(noise())
    _, photo = served.upload((tmp_path / "cat.png").read_bytes())
    events = served.work(
        "explain",
        photo=photo["key"],
        methods=["gradcam"],
        against=["tiger cat"],
        **{"class": "tabby"},
    )
    (asked,) = [e for e in events if e["event"] == "asked"]
    (one,) = [e for e in events if e["event"] == "map"]
    monkeypatch.setattr(camlucida, "load_model", lambda _: small_model())
    names: dict = {}
    exec(asked["python"], names)  # noqa: S102
    _, _, body = served.ask("GET", f"/api/values/{one['key']}")
    np.testing.assert_array_equal(np.frombuffer(body, "<f4"), names["found"].numpy().ravel())
    words = shlex.split(asked["command"])
    assert words[:3] == ["camlucida", "explain", "cat.png"]
    assert words[-4:] == ["--class", "tabby", "--against", "tiger cat"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"photo": "sample:nothing"}, "no such photo"),
        ({"photo": "upload-gone"}, "drop it on the page again"),
        ({"photo": 3}, "photo must be a text"),
        ({"photo": "sample:lion", "methods": ["gradcamm"]}, "gradcam"),
        ({"photo": "sample:lion", "methods": []}, "choose 1"),
        ({"photo": "sample:lion", "model": 7}, "no model 7"),
        ({"photo": "sample:lion", "model": -1}, "whole number"),
        ({"photo": "sample:lion", "against": ["a"], "target": "probability"}, "rival"),
    ],
)
def test_a_wrong_question_is_refused_in_words(served, asked, words):
    status, _, body = served.ask("POST", "/api/jobs/explain", json.dumps(asked))
    assert status in {404, 422}
    assert words in body.decode()


def test_a_method_that_cannot_run_costs_only_itself(served):
    events = served.work("explain", photo="sample:lion", methods=["rollout", "gradcam"])
    skipped = [e for e in events if e["event"] == "skipped"]
    assert [e["method"] for e in skipped] == ["rollout"]
    assert [e["method"] for e in events if e["event"] == "map"] == ["gradcam"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"not a picture", "not an image"),
        (noise()[:400], "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, ""),
    ],
)
def test_what_is_no_photo_is_refused_in_words(served, content, words):
    status, said = served.upload(content, "holiday.png")
    assert status == 422
    assert words in said
    assert "'holiday.png'" in said
    assert "tmp" not in said


def test_uploads_are_bounded_in_bytes_and_pixels(served, monkeypatch):
    monkeypatch.setattr("camlucida.app.server.MOST_BYTES", 1000)
    assert served.upload(noise())[0] == 413
    monkeypatch.setattr("camlucida.app.server.MOST_BYTES", 2**25)
    monkeypatch.setattr("camlucida.app.photos.MOST_PIXELS", 1000)
    status, said = served.upload(noise())
    assert status == 422
    assert "1000 allowed" in said


def test_a_full_queue_says_so(studio):
    studio.desk.close()
    studio.desk = Desk(most=1)
    page, end = serving(studio)
    hold, running = threading.Event(), threading.Event()
    try:
        studio.desk.submit(lambda _: (running.set(), hold.wait(30)), lambda _: None)
        running.wait(10)
        studio.desk.submit(lambda _: None, lambda _: None)
        question = json.dumps({"photo": "sample:lion"})
        status, headers, body = page.ask("POST", "/api/jobs/explain", question)
        assert status == 429
        assert headers["retry-after"]
        assert "wait for the model" in body.decode()
        assert page.ask("GET", "/")[0] == 200
        studio.desk.close()
        assert page.ask("POST", "/api/jobs/explain", question)[0] == 503
    finally:
        hold.set()
        end()


def test_a_job_ends_when_its_time_is_over(studio):
    studio.desk.close()
    studio.desk = Desk(seconds=0.0)
    page, end = serving(studio)
    try:
        events = page.work("explain", photo="sample:lion", methods=["fame:iterations=1000"])
        assert "stopped after" in events[-2]["words"]
        assert events[-1]["event"] == "done"
    finally:
        end()


def test_who_goes_away_frees_the_model(served):
    question = json.dumps({"photo": "sample:lion", "methods": ["fame:iterations=100000"]}).encode()
    head = (
        f"POST /api/jobs/explain HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nOrigin: {served.address}\r\n"
        f"x-camlucida: {served.secret}\r\ncontent-length: {len(question)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port)) as talk:
        talk.sendall(head.encode() + question)
        assert b"progress" in talk.recv(65536) + talk.recv(65536) + talk.recv(65536)
        assert served.studio.desk.state["running"] == 1
    until = time.monotonic() + 20
    while served.studio.desk.state["running"] and time.monotonic() < until:
        time.sleep(0.02)
    assert served.studio.desk.state == {"running": 0, "waiting": 0}


def test_results_are_kept_while_there_is_room(studio):
    from camlucida.app.photos import Kept

    kept = Kept(3)
    first, *_ = [kept.add(number) for number in range(4)]
    assert kept.get(first) is None
    assert studio.album["sample:lion"].picture is studio.album["sample:lion"].picture


def test_the_command_line_names_the_model_with_all_that_was_said_of_it():
    how = {
        "architecture": "timm:resnet18",
        "preprocess": {"size": (32, 48), "crop": False, "mean": 0.5},
    }
    assert Written("net.pt", how).options() == [
        "--model", "net.pt", "--architecture", "timm:resnet18", "--size", "32x48", "--no-crop", "--mean", "0.5",
    ]  # fmt: skip


def test_checks_are_those_of_the_library(served):
    events = served.work("check", photo="sample:lion", methods=["gradcam"])
    titles = {e["title"]: e for e in events if e["event"] == "check"}
    curves = [e for e in events if e["event"] == "curve"]
    assert {e["name"] for e in curves} == {
        "own deletion", "own insertion", "random deletion", "random insertion",
    }  # fmt: skip
    known = [
        sum(h is not None for h in e["heights"]) for e in curves if e["name"] == "own deletion"
    ]
    assert known == sorted(known)
    assert titles["Does the map depend on what the model has learned?"]["outcome"] != "not tested"


def test_a_wall_hides_what_was_drawn(served):
    region = {"top": 16, "left": 0, "bottom": 32, "right": 32}
    events = served.work("wall", photo="sample:lion", methods=["saliency"], region=region)
    (check,) = [e for e in events if e["event"] == "check"]
    (shown,) = [e for e in events if e["event"] == "map"]
    assert check["outcome"] != "fail"
    _, _, body = served.ask("GET", f"/api/values/{shown['key']}")
    assert not np.frombuffer(body, "<f4").reshape(32, 32)[16:].any()


def test_every_method_of_the_list_can_be_asked_for(studio):
    for method in studio.facts["methods"]:
        assert camlucida.methods.read_method(method["text"])[0] == method["name"]


def test_two_models_stand_beside_each_other():
    other = small_model()
    studio = Studio([small_model(), other], [Written("a"), Written("b")])
    page, end = serving(studio)
    try:
        first, second = (
            next(
                e for e in page.work("explain", photo="sample:lion", model=n) if e["event"] == "map"
            )
            for n in (0, 1)
        )
        assert first["key"] != second["key"]
        assert first["explained"] == second["explained"]
    finally:
        end()


def test_each_output_of_a_model_is_asked_as_the_library_does():
    model = model_with_heads()
    page, end = serving(Studio([model, small_model()], [Written("two"), Written("small")]))
    try:
        facts = page.studio.facts["models"]
        assert [(one["of"], one["head"]) for one in facts] == [
            (0, "kind"), (0, "more.0"), (2, ""),
        ]  # fmt: skip
        assert facts[1]["classes"] is None  # nothing says that the names are of this output
        events = page.work("explain", photo="sample:lion", methods=["gradcam"], model=1)
        (shown,) = [e for e in events if e["event"] == "map"]
        (asked,) = [e for e in events if e["event"] == "asked"]
        bare = replace(model, class_names=None, outputs=None)
        picture = page.studio.album["sample:lion"].picture
        found = camlucida.explain(bare, picture, method="gradcam", head="more.0")
        _, _, body = page.ask("GET", f"/api/values/{shown['key']}")
        np.testing.assert_array_equal(np.frombuffer(body, "<f4"), found.numpy().ravel())
        assert "--outputs head=more.0" in asked["command"]
        region = {"top": 16, "left": 0, "bottom": 32, "right": 32}
        for kind, more in (("check", {}), ("wall", {"region": region})):
            done = page.work(kind, photo="sample:lion", methods=["saliency"], model=1, **more)
            assert "error" not in {e["event"] for e in done}, done
    finally:
        end()


def test_a_module_of_one_output_in_a_parallel_wrapper_is_checked_too():
    from torch import nn

    model = small_model()
    module = nn.DataParallel(nn.Sequential(*model.module[:-1], nn.Linear(16, 1))).eval()
    page, end = serving(Studio([replace(model, module=module, class_names=None)], [Written("one")]))
    try:
        done = page.work("check", photo="sample:lion", methods=["gradcam"])
        assert "error" not in {e["event"] for e in done}, done
        assert json.loads(page.ask("GET", "/api/layers/0")[2])["layers"]
    finally:
        end()


def test_maps_that_are_the_same_say_so(served):
    events = served.work(
        "explain", photo="sample:lion", methods=["gradcam", "hirescam", "saliency"]
    )
    said = {e["method"]: " ".join(e["messages"]) for e in events if e["event"] == "map"}
    assert "the map of gradcam again" in said["hirescam"]
    assert "again" not in said["gradcam"] + said["saliency"]


def test_methods_that_do_not_fit_say_why(served):
    events = served.work("fits", model=0)
    (reasons,) = [e["reasons"] for e in events if e["event"] == "misfits"]
    assert "self-attention" in reasons["rollout"]
    assert "gradcam" not in reasons
    assert "cam" not in reasons


@pytest.mark.parametrize("kind", ["labels", "regression", "binary", "dense", "embedding"])
def test_models_of_other_kinds_are_explained_or_refused_in_words(kind):
    from torch import nn

    from camlucida.engine.reading import Outputs

    model = small_model()
    size = {"regression": 1, "binary": 1}.get(kind, 4)
    layers = (
        [*model.module[:-3], nn.Conv2d(16, 4, 1)]
        if kind == "dense"
        else [*model.module[:-1], nn.Linear(16, size)]
    )
    module = nn.Sequential(*layers).eval()
    names = None if kind in {"regression", "embedding"} else NAMES[: max(2, size)]
    other = replace(model, module=module, class_names=names, outputs=Outputs(kind))
    page, end = serving(Studio([other], [Written("other")]))
    try:
        events = page.work("explain", photo="sample:lion", methods=["gradcam"])
        kinds = {e["event"] for e in events}
        assert ("skipped" if kind == "embedding" else "map") in kinds, events
        checked = page.work("check", photo="sample:lion", methods=["gradcam"])
        assert checked[-1]["event"] == "done"
        assert not any("unexpected" in e.get("words", "") for e in checked)
    finally:
        end()
