# SPDX-License-Identifier: Apache-2.0
"""The addresses of the page, and what each answers; on loopback only.

===========================  ======  ==============================================================
``/``, ``/page.*``                   the page itself; holds nothing of anybody's
``/healthz``                         this process lives
``/readyz``                          the server takes jobs; ``?worker`` asks for a worker as well
``/metrics``                         figures for Prometheus
``/api/state``               token   jobs, workers, health; with ``after`` when it has changed
``/api/jobs/ID``             token   one job: knobs, warnings, stages
``/api/jobs/ID/sheet``       token   its contact sheet, a PNG
``/api/log``                 token   the last lines of the log, of one ``job``, of a ``level``
``/api/jobs/ID/cancel``      token   POST: cancel it
===========================  ======  ==============================================================

Nothing is changed by GET. Every answer forbids what a page of ours does not need.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from gencomp_protocol.client import Client
from gencomp_protocol.errors import GencompError, LinkError, MissingFrame, UnknownJob
from gencomp_server.logfile import last_lines
from gencomp_server.logs import job_named
from gencomp_server.web.access import Denied, check_change, check_host, check_token
from gencomp_server.web.metrics import CONTENT_TYPE, exposition
from gencomp_server.web.watch import Seen, Watch

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOOPBACK = "127.0.0.1"
API = "/api/"
_HOLD_S = 15.0  # A question for news waits so long.
_ANSWER_S = 5.0
_READY_S = 2.0
_MOST_LINES = 500
_MOST_BODY_BYTES = 4096
_PAGE = (
    ("/", "page.html", "text/html"),
    ("/page.css", "page.css", "text/css"),
    ("/page.js", "page.js", "text/javascript"),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
)
_ALLOWED = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _ALLOWED,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Page:
    """What answers requests.

    Args:
        watch: What is known of the server.
        token: Opens what is not public.
    """

    def __init__(self, watch: Watch, token: str) -> None:
        self._watch, self._token = watch, token
        self._news = asyncio.Condition()
        self.port = 0

    def application(self) -> web.Application:
        """Return the application; :attr:`port` is set once it listens."""
        made = web.Application(middlewares=[self._guarded], client_max_size=_MOST_BODY_BYTES)
        made.router.add_routes(
            [
                *(web.get(path, _static(name, kind)) for path, name, kind in _PAGE),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/api/state", self._state),
                web.get("/api/log", self._log),
                web.get("/api/jobs/{job}", self._job),
                web.get("/api/jobs/{job}/sheet", self._sheet),
                web.post("/api/jobs/{job}/cancel", self._cancel),
            ]
        )
        return made

    async def tell_news(self) -> None:
        """Answer those who wait for news."""
        async with self._news:
            self._news.notify_all()

    # --- rules -----------------------------------------------------------------------------------

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Apply the rules of ``access.py``; tell an error as a sentence, never as a traceback."""
        denied = self._denied(request)
        if denied is not None:
            log.info("refused %s %s: %s", request.method, request.path, denied.sentence)
            answer: web.StreamResponse = _said(denied.status, denied.sentence)
        else:
            answer = await self._answered(request, handler)
        answer.headers.update(_HEADERS)
        return answer

    def _denied(self, request: web.Request) -> Denied | None:
        headers = request.headers
        denied = check_host(headers.get("Host", ""), self.port)
        if denied is None and request.path.startswith(API):
            denied = check_token(headers, self._token)
        if denied is None and request.method not in ("GET", "HEAD"):
            denied = check_change(headers, self.port)
        return denied

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _said(error.status, f"{error.reason}.")
        except GencompError as error:
            is_absent = isinstance(error, (UnknownJob, MissingFrame))
            status = 404 if is_absent else 503 if isinstance(error, LinkError) else 400
            return _said(status, error.message, error.hint, error.code)
        except TimeoutError:
            return _said(503, "The server does not answer.", "It may be busy; try again.")
        except Exception:  # the edge: nobody sees a traceback in a browser
            log.exception("%s %s failed", request.method, request.path)
            return _said(500, "Something went wrong inside gencomp web; its log says what.")

    async def _asked(self, what: Callable[[Client], T], most_s: float = _ANSWER_S) -> T:
        return await asyncio.wait_for(asyncio.wrap_future(self._watch.ask(what)), most_s)

    # --- for machines ----------------------------------------------------------------------------

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"web": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        """Ask the server now: what was known a moment ago is no answer to this question."""
        try:
            health = await self._asked(lambda client: client.health(), _READY_S)
        except (GencompError, TimeoutError) as error:
            why = str(error) or "It does not answer in time."
            return web.json_response({"front": "down", "worker": "unknown", "why": why}, status=503)
        workers = [str(one.get("state")) for one in health.get("workers", [])]
        able = [state for state in workers if state in ("ready", "busy", "resting")]
        is_ready = health.get("front") == "ready"
        if "worker" in request.query:
            is_ready = is_ready and bool(able)
        told = {"front": health.get("front"), "worker": _of_all(workers), "workers": workers}
        return web.json_response(told, status=200 if is_ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        text = exposition(lambda: self._watch.seen)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    # --- for the page ----------------------------------------------------------------------------

    async def _state(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "")
        seen = self._watch.read()
        if after.isdecimal():
            await self._wait_for_news(int(after))
            seen = self._watch.read()
        return web.json_response(_plain(seen))

    async def _wait_for_news(self, turn: int) -> None:
        """Wait until more is known than at ``turn``, or a while has passed."""
        until_s = time.monotonic() + _HOLD_S
        async with self._news:
            while self._watch.read().turn == turn:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return
                try:
                    # Reading now and then keeps the watch eager for as long as somebody looks.
                    await asyncio.wait_for(self._news.wait(), min(left_s, 2.0))
                except TimeoutError:
                    continue

    async def _job(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]

        def ask(client: Client) -> dict[str, Any]:
            entry = client.job(job)
            return {"job": entry, "stages": client.graph(job)["stages"]}

        return web.json_response(await self._asked(ask))

    async def _sheet(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]
        picture = await self._asked(lambda client: client.sheet(job))
        return web.Response(body=picture, content_type="image/png")

    async def _log(self, request: web.Request) -> web.Response:
        query = request.query
        asked = query.get("lines", "200")
        most = min(int(asked), _MOST_LINES) if asked.isdecimal() and len(asked) < 6 else _MOST_LINES
        file = str(self._watch.read().health.get("log_file", ""))
        lines: list[dict[str, Any]] = []
        if file:
            job, level = query.get("job", ""), query.get("level", "")
            read = asyncio.to_thread(last_lines, Path(file), most, job=job, level=level)
            lines = await read
        return web.json_response({"file": file, "lines": lines})

    async def _cancel(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]
        await self._asked(lambda client: client.cancel(job))
        with job_named(job):
            log.info("cancelled from the page")
        return web.json_response({"job": job})


def _plain(seen: Seen) -> dict[str, Any]:
    return {
        "turn": seen.turn,
        "is_up": seen.is_up,
        "why": seen.why,
        "now_s": time.time(),
        "health": dict(seen.health),
        "jobs": [dict(job) for job in seen.jobs],
    }


def _of_all(states: Iterable[str]) -> str:
    """Return what is said of all workers by what is true of one: the first that is found."""
    found = set(states)
    order = ("ready", "busy", "resting", "starting", "lost")
    return next((state for state in order if state in found), "unknown")


def _said(status: int, message: str, hint: str = "", code: str = "") -> web.Response:
    error = {"code": code, "message": message, "hint": hint}
    return web.json_response({"error": error}, status=status)


def _static(name: str, kind: str) -> Handler:
    body = files(__package__).joinpath(name).read_bytes()

    async def give(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return give


async def run_page(
    watch_of: Callable[[Callable[[], None]], Watch],
    token: str,
    port: int,
    *,
    on_ready: Callable[[int], None],
    until: Callable[[Callable[[], None]], object] | None = None,
) -> None:
    """Serve the page until told to leave.

    Args:
        watch_of: Makes the watch, given what to call when something has changed.
        token: Opens what is not public.
        port: Loopback port; 0 takes a free one.
        on_ready: Told the port once requests are answered.
        until: Given what ends the page; calls it when it is time. Signals end it, too.

    Raises:
        OSError: The port cannot be had.
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    running: set[asyncio.Task[None]] = set()

    def changed() -> None:
        def tell() -> None:
            task = loop.create_task(page.tell_news())
            running.add(task)
            task.add_done_callback(running.discard)

        if not over.is_set():
            loop.call_soon_threadsafe(tell)

    def leave() -> None:
        loop.call_soon_threadsafe(over.set)

    watch = watch_of(changed)
    page = Page(watch, token)
    runner = web.AppRunner(page.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, LOOPBACK, port)
        await site.start()
        page.port = runner.addresses[0][1]
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        if until is not None:
            until(leave)
        watch.start()
        on_ready(page.port)
        await over.wait()
    finally:
        over.set()
        await runner.cleanup()
        await asyncio.to_thread(watch.stop)


def spell_address(port: int, token: str) -> str:
    """Return the address that opens the page; what follows ``#`` never leaves the browser."""
    return f"http://{LOOPBACK}:{port}/#token={token}"


def read_address(path: Path) -> str:
    """Return the address that a running page wrote about itself."""
    return str(json.loads(path.read_text(encoding="utf-8"))["url"])
