"""``serve``: from a model to a page in the browser."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import require

if TYPE_CHECKING:
    from camlucida.app.jobs import Job
    from camlucida.app.question import Written
    from camlucida.models import LoadedModel

PORT = 7432


def serve(
    models: Sequence[LoadedModel] | LoadedModel,
    *,
    data: str | None = None,
    audit: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    job_seconds: float = 300.0,
    written: Sequence[Written] | None = None,
    browser: bool = True,
    say: Callable[[str], object] = print,
) -> None:
    """Serve the page until Ctrl-C.

    Photos that are dropped on it stay in this process's memory; nothing is sent anywhere else.

    Args:
        models: one loaded model, or several to be chosen from.
        data: a data set to look through, as :func:`camlucida.data.open_data` takes it.
        audit: the folder that ``camlucida audit all`` wrote; the page shows its grades.
        host: the address that is listened on. Any other than this machine's own needs a token: whoever reaches the
            address and knows the token sees the data set's photos and lets the model work.
        port: the port; 0 takes a free one.
        token: a secret of at least 16 letters that a browser has to show, in the address that is printed.
        job_seconds: how long one request may keep the model busy.
        written: how the models are named on the command line; by default by their names.
        browser: open the page in the system's browser.
        say: called with each line that a person has to read.

    Raises:
        CamlucidaError: the extra ``app`` is not installed, the address cannot be listened on or needs a token, or the
            data set or the audit cannot be read.

    Example:
        >>> camlucida.app.serve(loaded, host="0.0.0.0")
        Traceback (most recent call last):
        ...
        camlucida.common.errors.CamlucidaError: 0.0.0.0 can be reached from other machines, ...
    """
    local = host in {"127.0.0.1", "localhost", "::1"}
    _check(host, token, local=local)
    uvicorn = require("uvicorn", "app")
    require("starlette", "app")
    from camlucida.app.grades import read_grades
    from camlucida.app.guard import LOOPBACK, hosts_of, with_token
    from camlucida.app.jobs import Desk
    from camlucida.app.question import Written as Named
    from camlucida.app.server import application
    from camlucida.app.studio import Studio
    from camlucida.data.open import open_known, parse
    from camlucida.models import LoadedModel as Loaded

    loaded = [models] if isinstance(models, Loaded) else list(models)
    names = written or [Named(model.name) for model in loaded]
    opened = None if data is None else open_known(data, class_names=loaded[0].class_names)
    kind, place, _ = ("", "", {}) if data is None else parse(data)
    folder = Path(place) if kind == "folder" else None
    grades = None if audit is None else read_grades(audit, loaded[0])
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    desk = Desk(seconds=job_seconds)
    studio = Studio(loaded, names, opened, folder, grades, desk)
    desk.submit(lambda job: _warm(studio, job), lambda _: None)
    anywhere = host in {"0.0.0.0", "::"}  # noqa: S104
    shown = "localhost" if anywhere else f"[{host}]" if ":" in host else host
    hosts = hosts_of({*LOOPBACK, shown}, port)
    app = application(studio, frozenset() if anywhere else hosts, token or "")
    config = uvicorn.Config(
        app, log_level="critical", access_log=False, server_header=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=2, timeout_keep_alive=30, limit_concurrency=256,
    )  # fmt: skip
    address = with_token(f"http://{shown}:{port}/", token or "")
    say(f"The page is at {address}")
    if not local:
        say(
            "Whoever has this address sees the photos and lets the model work; it is not encrypted."
        )
    say("Ctrl-C ends it.")
    if browser:
        threading.Timer(0.3, webbrowser.open, [address]).start()
    server = _server(uvicorn, config, desk)
    before = (
        {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if _main()
        else {}
    )
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        desk.close(wait=True)  # a thread that still computes would crash the interpreter as it ends
        listening.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    say("The page is closed.")


def _server(uvicorn: Any, config: Any, desk: Any) -> Any:
    """A server that ends its jobs first, so that their streams end too."""

    class Server(uvicorn.Server):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: Any) -> None:
            desk.close()
            super().handle_exit(sig, frame)

    return Server(config)


def _main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _check(host: str, token: str | None, *, local: bool) -> None:
    if not local and token is None:
        raise CamlucidaError(
            f"{host} can be reached from other machines, whose users would see the photos and let the model work; give "
            f"--token SECRET, which the address then holds, such as --token {secrets.token_urlsafe(16)}"
        )
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_-]{16,200}", token):
        raise CamlucidaError(
            f"a token has 16 to 200 letters, digits, - and _, such as {secrets.token_urlsafe(16)}; got {len(token)}"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise CamlucidaError(
            f"{host}:{port} cannot be listened on: {reason}; --port chooses another port, --port 0 a free one"
        ) from error
    listening.listen(128)
    return listening


def _warm(studio: Any, job: Job) -> None:
    """Explain a sample once, so that the first photo does not wait for what is made on first use."""
    from camlucida.app.question import Question

    for number in {head.of for head in studio.heads}:
        studio.answer(Question("sample:chelsea", model=number), job)
