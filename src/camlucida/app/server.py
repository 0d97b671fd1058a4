"""The server behind the page: routes, uploads, and jobs whose events are streamed while the page listens."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from functools import cache, cached_property
from importlib.resources import files
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from camlucida.app.checks import checking, walling
from camlucida.app.errors import BusyError, GoneError, PageError, TooLargeError
from camlucida.app.guard import Guard
from camlucida.app.looking import celling, growing, layering
from camlucida.app.many import neighbouring, ranking, verifying
from camlucida.app.photos import MOST_BYTES, Photo
from camlucida.app.question import texts
from camlucida.app.studio import FORMATS, Studio
from camlucida.app.works import Asked, Work, explaining, fitting
from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import plain, to_json
from camlucida.report.template import jpeg, page

WORKS: dict[str, Callable[[Studio, Asked], Work]] = {
    "explain": explaining,
    "fits": fitting,
    "check": checking,
    "wall": walling,
    "layers": layering,
    "grow": growing,
    "cell": celling,
    "rank": ranking,
    "neighbours": neighbouring,
    "verify": verifying,
}
"""By the name that the page uses."""

_MOST_JSON = 2**18
_BEAT = 5.0  # seconds between two signs of life of a stream
_READING = 4  # uploads at a time
_PATIENCE = 60.0  # seconds that an upload may take
_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def application(studio: Studio, hosts: frozenset[str] = frozenset(), token: str = "") -> Any:
    """The whole server as an ASGI application.

    Args:
        studio: what the page works with.
        hosts: the Host headers that are answered; empty answers any, which takes a token.
        token: what a browser has to show.
    """
    secret = secrets.token_urlsafe(16)
    routes = _Routes(studio, secret)
    app = Starlette(
        routes=[
            Route("/", routes.start),
            Route("/static/{name}", routes.static),
            Route("/api/facts", routes.facts),
            Route("/api/state", routes.state),
            Route("/api/layers/{model:int}", routes.layers),
            Route("/api/photos", routes.upload, methods=["POST"]),
            Route("/api/photos/{key:path}", routes.photo),
            Route("/api/values/{key}", routes.values),
            Route("/api/pictures/{key}", routes.picture),
            Route("/api/files/{kind}", routes.file),
            Route("/api/jobs/{kind}", routes.job, methods=["POST"]),
        ],
        exception_handlers={CamlucidaError: _refused, Exception: _broken},
    )
    return Guard(app, hosts, secret, token)


class _Routes:
    def __init__(self, studio: Studio, secret: str) -> None:
        self.studio = studio
        self.reading = asyncio.Semaphore(_READING)
        self.finding: dict[int, asyncio.Future[Any]] = {}
        names = {head.of: head.model.name for head in studio.heads}
        self.html = page(
            "app.html", package="camlucida.app", secret=secret, models=names, limit=MOST_BYTES
        ).encode()

    @cached_property
    def told(self) -> bytes:
        """What the page is told at the start."""
        return to_json(self.studio.facts).encode()

    async def start(self, request: Request) -> Response:  # noqa: ARG002
        return Response(self.html, media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = _assets().get(name)
        if content is None:
            return _words("there is no such file", 404)
        return Response(content, media_type=_KINDS[name.rpartition(".")[2]])

    async def facts(self, request: Request) -> Response:  # noqa: ARG002
        content = await run_in_threadpool(lambda: self.told)
        return Response(content, media_type="application/json")

    async def state(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse(self.studio.desk.state)

    async def layers(self, request: Request) -> Response:
        number = request.path_params["model"]
        self.studio.model(number)
        known = self.finding.get(number)
        if known is None or (known.done() and known.exception()):  # one thread waits for the model
            known = asyncio.ensure_future(run_in_threadpool(self.studio.layers, number))
            self.finding[number] = known
        return JSONResponse(plain(await asyncio.shield(known)))

    async def upload(self, request: Request) -> Response:
        if self.reading.locked():
            raise BusyError(f"{_READING} photos are being read already; try again in a moment")
        name = unquote(request.headers.get("x-name", "photo"))
        async with self.reading:
            try:
                content = await asyncio.wait_for(_body(request, MOST_BYTES), _PATIENCE)
            except TimeoutError:
                raise PageError(f"the photo did not arrive within {_PATIENCE:g} seconds") from None
            photo = await run_in_threadpool(self.studio.album.upload, content, name)
        return JSONResponse(_photo(photo))

    async def photo(self, request: Request) -> Response:
        key, facts = request.path_params["key"], request.query_params.get("facts")
        photo = await run_in_threadpool(self.studio.album.__getitem__, key)
        if facts is not None:
            return JSONResponse(_photo(photo))
        small = "small" in request.query_params
        content = await run_in_threadpool(lambda: jpeg(self.studio.shown(photo, small=small), 90))
        return Response(content, media_type="image/jpeg")

    async def values(self, request: Request) -> Response:
        found = self.studio.values.get(request.path_params["key"])
        if found is None:
            raise GoneError("this result is not kept any more; ask again")
        return Response(found.tobytes(), media_type="application/octet-stream")

    async def picture(self, request: Request) -> Response:
        found = self.studio.pictures.get(request.path_params["key"])
        if found is None:
            raise GoneError("this picture is not kept any more; ask again")
        return Response(found, media_type="image/png")

    async def file(self, request: Request) -> Response:
        kind, keys = request.path_params["kind"], request.query_params.getlist("key")
        if kind not in FORMATS:
            return _words(f"results can be taken along as {', '.join(FORMATS)}", 404)
        keys = texts({"keys": keys}, "keys")
        content, name = await run_in_threadpool(self.studio.file, keys, kind)
        disposition = f"attachment; filename*=utf-8''{quote(name)}"
        return Response(
            content, media_type=FORMATS[kind], headers={"content-disposition": disposition}
        )

    async def job(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in WORKS:
            return _words(f"there is no work {kind!r}", 404)
        try:
            asked = json.loads(await _body(request, _MOST_JSON))
        except (ValueError, RecursionError):
            raise CamlucidaError("the request is not JSON") from None
        if not isinstance(asked, dict):
            raise CamlucidaError("the request is not a JSON object")
        work = await run_in_threadpool(WORKS[kind], self.studio, asked)
        return _Stream(self.studio, work)


class _Stream(Response):  # type: ignore[misc]
    """A job's events, as long as somebody listens."""

    def __init__(self, studio: Studio, work: Callable[..., object]) -> None:
        super().__init__()
        self._desk = studio.desk
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._job = self._desk.submit(work, tell)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        gone = asyncio.create_task(_gone(receive))
        sending = asyncio.create_task(self._send(send, headers))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._desk.cancel(self._job)
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send(self, send: Any, headers: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        event: Any = {}
        while event.get("event") != "done":
            event = await self._next()
            content = f"data: {json.dumps(plain(event), allow_nan=False)}\n\n".encode()
            await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _next(self) -> Any:
        before = self._desk.before(self._job)
        beat = {"event": "waiting", "before": before} if before else {"event": "alive"}
        try:
            return await asyncio.wait_for(self._events.get(), 0.5 if before else _BEAT)
        except TimeoutError:
            return beat


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, most: int) -> bytes:
    """What was sent, of which no more is read than is taken."""
    words = f"at most {most / 2**20:g} MB are taken at a time"
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise TooLargeError(words)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLargeError(words)
        parts.append(part)
    return b"".join(parts)


def _photo(photo: Photo) -> dict[str, Any]:
    return {
        "key": photo.key,
        "name": photo.name,
        "label": photo.label_name,
    }


@cache
def _assets() -> dict[str, bytes]:
    """All files that are served, by name; no other path leads to a file."""
    folder = files("camlucida.app") / "static"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _KINDS
    }


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
    status = getattr(error, "status", PageError.status)
    headers = {"retry-after": "2"} if status in {429, 503} else None
    return PlainTextResponse(str(error) + "\n", status, headers)


async def _broken(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if isinstance(error, ClientDisconnect):
        return _words("nobody listens", 400)
    if isinstance(error, MemoryError):
        return _words("there is not enough memory for this photo", 503)
    return _words(f"unexpected {type(error).__name__}", 500)


def _words(text: str, status: int) -> Response:
    return PlainTextResponse(text + "\n", status)
