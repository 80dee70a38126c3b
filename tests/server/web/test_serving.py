# SPDX-License-Identifier: Apache-2.0
"""What each address answers, and to whom; without a server and without a browser."""

import asyncio
import json
import logging
import re
from concurrent.futures import Future
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gencomp_protocol.errors import MissingFrame, ServerUnreachable, UnknownJob
from gencomp_server.web.serving import Page
from gencomp_server.web.watch import Seen

TOKEN = "t" * 43
JSON = {"Content-Type": "application/json"}
HEALTH = {"front": "ready", "workers": [{"name": "cpu", "state": "busy", "job": "3f9a"}]}
SEEN = Seen(4, True, "", 1.0, HEALTH, ({"job": "3f9a", "state": "running"},))


class FakeClient:
    """A server's answers, and what was asked of it."""

    def __init__(self, watch):
        self._watch = watch

    def health(self):
        return self._watch.seen.health

    def job(self, job):
        if job != "3f9a":
            raise UnknownJob("The server has no such job.", hint="It may be old.")
        return {"job": job, "knobs": {"prompt": "<b>"}}

    def graph(self, job):
        return {"job": job, "state": "running", "stages": [{"name": "scene"}]}

    def sheet(self, job):
        if job != "3f9a":
            raise MissingFrame("It has no contact sheet.")
        return b"\x89PNG"

    def cancel(self, job):
        self._watch.cancelled.append(job)


class FakeWatch:
    """A watch whose server is a :class:`FakeClient`, or is away."""

    def __init__(self):
        self.seen, self.cancelled, self.fault = SEEN, [], None

    def read(self):
        return self.seen

    def ask(self, what):
        answer = Future()
        try:
            if self.fault is not None:
                raise self.fault
            answer.set_result(what(FakeClient(self)))
        except Exception as error:
            answer.set_exception(error)
        return answer


@pytest.fixture
def watch():
    return FakeWatch()


@pytest.fixture
def asked(watch):
    """Return a function that asks the page: status, headers and body of the answer."""

    def ask(path, method="GET", headers=None, token=TOKEN, meanwhile=None):
        async def run():
            page = Page(watch, TOKEN)
            async with TestClient(TestServer(page.application())) as client:
                page.port = client.port
                given = {} if token is None else {"Authorization": f"Bearer {token}"}
                given.update(headers or {})
                if meanwhile is not None:
                    asyncio.get_running_loop().call_later(0.1, meanwhile, page)
                answer = await client.request(method, path, headers=given, data=b"{}")
                return answer.status, answer.headers, await answer.read()

        return asyncio.run(run())

    return ask


def told(answer):
    return json.loads(answer[2])


@pytest.mark.parametrize(
    "path", ["/api/state", "/api/log", "/api/jobs/3f9a", "/api/jobs/3f9a/sheet"]
)
@pytest.mark.parametrize("token", [None, "wrong"])
def test_what_is_not_public_needs_the_token(asked, path, token):
    assert asked(path, token=token)[0] == 401


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/page.css", "/icon.svg", "/healthz", "/metrics"]
)
def test_what_is_public_holds_nothing_of_a_job(asked, path):
    status, _, body = asked(path, token=None)
    assert (status, b"3f9a" in body) == (200, False)


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/api/state"])
def test_a_name_that_is_not_loopbacks_gets_nothing(asked, path):
    assert asked(path, headers={"Host": "evil.example"})[0] == 421


def test_the_state_is_what_the_watch_saw(asked):
    found = told(asked("/api/state"))
    assert (found["turn"], found["jobs"]) == (4, [{"job": "3f9a", "state": "running"}])


def test_a_question_for_news_is_answered_when_there_are_some(asked, watch):
    def happen(page):
        watch.seen = replace(SEEN, turn=5)
        page.task = asyncio.ensure_future(page.tell_news())

    assert told(asked("/api/state?after=4", meanwhile=happen))["turn"] == 5


def test_a_job_comes_with_its_stages(asked):
    found = told(asked("/api/jobs/3f9a"))
    assert found == {
        "job": {"job": "3f9a", "knobs": {"prompt": "<b>"}},
        "stages": [{"name": "scene"}],
    }


def test_a_contact_sheet_is_a_picture(asked):
    status, headers, body = asked("/api/jobs/3f9a/sheet")
    assert (status, headers["Content-Type"], body) == (200, "image/png", b"\x89PNG")


@pytest.mark.parametrize("path", ["/api/jobs/none", "/api/jobs/none/sheet", "/api/none"])
def test_what_is_not_there_is_a_sentence(asked, path):
    status, _, body = asked(path)
    assert status == 404
    assert json.loads(body)["error"]["message"]


# --- changing ------------------------------------------------------------------------------------


def test_a_program_with_the_token_cancels(asked, watch):
    assert asked("/api/jobs/3f9a/cancel", "POST", JSON)[0] == 200
    assert watch.cancelled == ["3f9a"]


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        (JSON, None, 401),
        (JSON, "wrong", 401),
        ({**JSON, "Origin": "http://evil.example"}, TOKEN, 403),
        ({**JSON, "Sec-Fetch-Site": "cross-site"}, TOKEN, 403),
        ({"Content-Type": "text/plain"}, TOKEN, 415),
        ({**JSON, "Host": "evil.example"}, TOKEN, 421),
    ],
)
def test_nobody_else_does(asked, watch, headers, token, status):
    assert asked("/api/jobs/3f9a/cancel", "POST", headers, token)[0] == status
    assert watch.cancelled == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_is_changed_but_by_post(asked, watch, method):
    assert asked("/api/jobs/3f9a/cancel", method, JSON)[0] == 405
    assert watch.cancelled == []


# --- health --------------------------------------------------------------------------------------


def test_ready_is_the_front_and_tells_the_worker_apart(asked, watch):
    watch.seen = replace(SEEN, health={"front": "ready", "workers": [{"state": "starting"}]})
    status, _, body = asked("/readyz", token=None)
    assert (status, json.loads(body)["worker"]) == (200, "starting")
    assert asked("/readyz?worker", token=None)[0] == 503
    watch.seen = SEEN
    assert asked("/readyz?worker", token=None)[0] == 200


def test_a_front_that_drains_is_not_ready(asked, watch):
    watch.seen = replace(SEEN, health={**HEALTH, "front": "draining"})
    assert asked("/readyz")[0] == 503


def test_without_a_server_the_page_lives_and_says_that_there_is_none(asked, watch):
    watch.fault = ServerUnreachable("Nobody listens.")
    assert asked("/healthz")[0] == 200
    status, _, body = asked("/readyz")
    assert (status, json.loads(body)["why"]) == (503, "Nobody listens.")
    status, _, body = asked("/api/jobs/3f9a")
    assert (status, json.loads(body)["error"]["code"]) == (503, "server-unreachable")


def test_a_fault_of_ours_is_a_sentence_and_its_traceback_is_in_the_log(asked, watch, caplog):
    watch.fault = ZeroDivisionError("broken")
    with caplog.at_level(logging.ERROR):
        status, _, body = asked("/api/jobs/3f9a")
    assert (status, b"broken" in body) == (500, False)
    assert "ZeroDivisionError" in caplog.text


# --- what a browser is told ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/state", "/api/none"])
def test_every_answer_forbids_what_the_page_does_not_need(asked, path):
    headers = asked(path)[1]
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


class Markup(HTMLParser):
    """What a page loads, and what of it would run in place."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.in_place = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.loaded += [names[one] for one in ("src", "href", "action") if one in names]
        self.in_place += [one for one in names if one.startswith("on") or one == "style"]
        self.in_place += [tag] * (tag in ("style", "iframe", "object", "base"))
        self.in_place += [tag] * (tag == "script" and "src" not in names)


def test_the_page_loads_from_itself_alone_and_runs_nothing_in_place(asked):
    found = Markup(asked("/")[2].decode())
    assert found.loaded == ["/icon.svg", "/page.css", "/page.js"]
    assert found.in_place == []


def test_the_script_never_takes_text_for_markup_and_asks_nobody_else(asked):
    script, style = (asked(path)[2].decode() for path in ("/page.js", "/page.css"))
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in script
    assert "//" not in re.sub(r"^\s*//.*$|http://www.w3.org/2000/svg", "", script, flags=re.M)
    assert "url(" not in style


# --- the log -------------------------------------------------------------------------------------


def test_the_log_is_that_of_a_job_where_one_is_named(asked, watch, tmp_path):
    place = tmp_path / "server.jsonl"
    lines = [
        {"message": text, "job": job, "level": "info"} for text, job in (("a", "3f9a"), ("b", None))
    ]
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    watch.seen = replace(SEEN, health={**HEALTH, "log_file": str(place)})
    assert [one["message"] for one in told(asked("/api/log"))["lines"]] == ["a", "b"]
    assert [one["message"] for one in told(asked("/api/log?job=3f9a"))["lines"]] == ["a"]
    assert told(asked("/api/log?lines=1"))["lines"][0]["message"] == "b"
    assert told(asked("/api/log?lines=99999999999"))["lines"]


def test_a_server_without_a_log_file_has_no_lines(asked):
    assert told(asked("/api/log")) == {"file": "", "lines": []}
