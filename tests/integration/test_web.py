# SPDX-License-Identifier: Apache-2.0
"""The page beside a real server: in a real browser, killed, and with logs that nobody takes."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from command_line import FRAMES, Shot, environment, finish, matte_of, plate_of, write_picture
from gencomp_protocol.client import Client
from gencomp_protocol.locate import read_server_file
from gencomp_server.logfile import last_lines
from gencomp_server.provenance import text_hash

EVIL = '<img src=x onerror="window.hit=1">\x1b[31mred\n{"message": "forged", "level": "error"}'
PATIENCE_S = 30.0


def until(fact, what="it"):
    """Wait until something is so, and return it."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = fact()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} never came")


class Served:
    """A server with its page, as ``gencomp serve --web-port 0`` starts them."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.state_file, self.web_file = (
            folder / "home" / "server.json",
            folder / "home" / "web.json",
        )
        self.log, self.errors = folder / "spool" / "log" / "server.jsonl", folder / "stderr"
        self.environ = environment("web_systems:REGISTRY")
        self.environ |= {
            "GENCOMP_HOME": str(folder / "home"),
            "GENCOMP_SPOOL": str(folder / "spool"),
        }
        self.environ |= {f"GENCOMP_{name.upper()}": value for name, value in settings.items()}

    def start(self, stderr=None):
        with open(stderr or self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gencomp_server", "serve", "--web-port", "0"],
                env=self.environ,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        until(self.web_file.exists, "the page")
        return self

    @property
    def page(self):
        """Return address and token of the page that runs now."""
        url, _, token = json.loads(self.web_file.read_text())["url"].partition("#token=")
        return url, token

    def ask(self, path, data=None, **headers):
        """Return status and answer of the page."""
        url, token = self.page
        given = {"Authorization": f"Bearer {token}", **headers}
        request = urllib.request.Request(url.rstrip("/") + path, data, given)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def client(self):
        here = read_server_file(self.state_file)
        return Client(here.address, here.secret)

    def states(self):
        with self.client() as client:
            return {job["job"]: job["state"] for job in client.jobs()}

    def run(self, shot, out, *words):
        """Start ``gencomp run`` against this server; the caller ends it."""
        address = read_server_file(self.state_file).address
        command = ["run", "cutout", "--server", address, "--out", str(out), "--json", *words]
        command += ["--input", f"plate={shot.folder}/plate/plate.%04d.exr"]
        command += ["--input", f"matte.ball={shot.folder}/matte/matte.####.exr"]
        return subprocess.Popen(
            [sys.executable, "-m", "gencomp_server", *command],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def shot_in(folder):
    made = Shot(folder)
    for frame in FRAMES:
        write_picture(made.plate(frame), plate_of(frame), ("R", "G", "B"))
        write_picture(made.matte(frame), matte_of(), ("A",))
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve at ``debug`` and in JSON, for all tests here."""
    made = Served(tmp_path_factory.mktemp("web"), log_level="debug", log_format="json", drain_s="0")
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [
        shutil.which("chromium") or shutil.which("google-chrome"),
        shutil.which("chromedriver"),
    ]
    if not all(programs):
        pytest.skip("no chromium with its chromedriver on this machine")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument("--window-size=1500,920")
    made = selenium.Chrome(options, selenium.ChromeService(programs[1]))
    yield made
    made.quit()


class Page:
    """The page in the browser, as somebody sees it."""

    def __init__(self, browser, served):
        self.browser = browser
        url, token = served.page
        browser.get("about:blank")
        browser.get(f"{url}#token={token}")
        until(lambda: "server ready" in self.text("#front"), "the page")

    def text(self, selector):
        return self.browser.find_element("css selector", selector).text

    def row(self, job):
        return f'#jobs tr[data-job="{job}"]'

    def has(self, selector):
        return bool(self.browser.find_elements("css selector", selector))

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()

    def state(self, job):
        return self.text(f"{self.row(job)} td.state") if self.has(self.row(job)) else ""

    def script(self, words):
        return self.browser.execute_script(f"return {words}")


def job_of(process):
    """Return the id of the job that a run was given, out of its events."""
    for line in process.stdout:
        event = json.loads(line)
        if event.get("job"):
            return event["job"]
    raise AssertionError(process.stderr.read())


def test_a_job_of_the_command_line_is_watched_to_its_end_and_a_second_is_cancelled(
    served, browser, tmp_path
):
    shot, page = shot_in(tmp_path), Page(browser, served)
    first = served.run(shot, tmp_path / "one", "--set", "wait_s=0.6")
    job = job_of(first)
    until(lambda: page.state(job) == "running", "the first job")
    until(lambda: "cut" in page.text(f"{page.row(job)} td.wide"), "its progress")
    second = served.run(shot, tmp_path / "two", "--set", "wait_s=60", "--set", "gain=2")
    until(lambda: page.state(job) == "done", "its end")
    assert finish(first).code == 0
    page.click(f"{page.row(job)} td.id")
    until(lambda: page.has("#sheet img"), "its contact sheet")
    until(lambda: page.script("document.querySelector('#sheet img').naturalWidth > 400"))
    assert page.text("#stages").startswith("measure")

    job = job_of(second)
    until(lambda: page.state(job) == "running", "the second job")
    page.click(f"{page.row(job)} button.cancel")
    assert page.text(f"{page.row(job)} button.cancel") == "really?"
    assert served.states()[job] == "running"
    page.click(f"{page.row(job)} button.cancel")
    until(lambda: page.state(job) == "cancelled", "its cancelling")
    assert finish(second).code == 130
    assert browser.get_log("browser") == []


def test_a_page_of_another_origin_cannot_cancel(served, browser, tmp_path):
    running = served.run(shot_in(tmp_path), tmp_path / "out", "--set", "wait_s=60")
    job = job_of(running)
    until(lambda: served.states()[job] == "running")
    url, token = served.page
    with AnotherOrigin(url, token, job) as address:
        browser.get(address)
        until(lambda: browser.title == "tried everything", "the attack")
    # The browser's own console says that it was refused, each time it was.
    assert "blocked by CORS policy" in str(browser.get_log("browser"))
    time.sleep(0.3)
    assert served.states()[job] == "running"
    status, _ = served.ask(
        f"/api/jobs/{job}/cancel", b"{}", Origin="null", **{"Content-Type": "application/json"}
    )
    assert (status, served.states()[job]) == (403, "running")
    status, _ = served.ask(f"/api/jobs/{job}/cancel", b"{}", **{"Content-Type": "application/json"})
    assert status == 200
    assert finish(running).code == 130


_ATTACK = """<!doctype html><title>working</title><body><script>
const at = URL + "api/jobs/" + JOB + "/cancel", bearer = {Authorization: "Bearer " + TOKEN};
const json = {"Content-Type": "application/json"}, method = "POST", body = "{}";
const tries = [
  () => fetch(at, {method, mode: "no-cors", credentials: "include", body}),
  () => fetch(at, {method, headers: json, body}),
  () => fetch(at, {method, headers: {...bearer, ...json}, body}),
  () => fetch(at, {headers: bearer}),
  () => fetch(URL + "api/state", {headers: bearer}),
  () => new Promise((done) => {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    frame.name = "there"; form.method = "post"; form.action = at; form.target = "there";
    frame.onload = done; document.body.append(frame, form); form.submit(); setTimeout(done, 500);
  }),
];
(async () => {
  for (const one of tries) {
    try { if ((await one())?.ok) document.title = "let in"; } catch {}
  }
  if (document.title === "working") document.title = "tried everything";
})();
</script>"""


class AnotherOrigin:
    """A page of somebody else's, who even knows the token."""

    def __init__(self, url, token, job):
        facts = {"URL": url, "TOKEN": token, "JOB": job}
        names = "".join(f"const {name} = {json.dumps(value)};" for name, value in facts.items())
        body = _ATTACK.replace("<script>", f"<script>{names}").encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.fault("F46")
def test_a_prompt_of_markup_and_control_characters_is_text_everywhere(served, browser, tmp_path):
    served.environ["GENCOMP_SHOW"] = "<b>moth</b>"
    folder = tmp_path / "2026 INFO forged\nERROR\x1b[31m<i>"
    run = served.run(shot_in(folder), tmp_path / "out", "--set", f"prompt={EVIL}")
    job = job_of(run)
    assert finish(run).code == 0
    delivered = (tmp_path / "out" / "ball" / "ball.1001.exr").read_bytes()
    assert b"onerror" not in delivered
    assert f"{text_hash(EVIL)}".encode() in delivered
    page = Page(browser, served)
    until(lambda: page.state(job) == "done")
    assert "<b>moth</b>" in page.text(page.row(job))
    page.click(f"{page.row(job)} td.id")
    shown = until(lambda: page.has("#knobs dd") and page.text("#knobs"), "the knobs")
    assert '<img src=x onerror="window.hit=1">\\x1b[31mred\\n{"message"' in shown
    page.click("#ofjob")
    until(lambda: "onerror" in page.text("#lines"), "the log")
    assert page.script("window.hit") is None
    assert not page.has("#main b:not(#counts b), #main img:not(#sheet img)")

    # One line per event, on standard error as in the file; the prompt at debug alone.
    lines = [json.loads(line) for line in served.errors.read_text().splitlines() if line[0] == "{"]
    kept = last_lines(served.log, 9999)
    assert len(served.log.read_text().splitlines()) == len(kept)
    assert not any(one["message"].startswith("forged") for one in [*lines, *kept])
    with_prompt = {one["level"] for one in kept if "onerror" in one["message"]}
    assert with_prompt == {"debug"}
    assert {one["job"] for one in kept if "onerror" in one["message"]} == {job}


@pytest.mark.slow
@pytest.mark.fault("F46")
def test_a_page_that_is_killed_costs_no_job_and_comes_back(served, tmp_path):
    assert b"gencomp_up 1.0" in served.ask("/metrics")[1]
    run = served.run(shot_in(tmp_path), tmp_path / "out", "--set", "wait_s=0.4")
    job_of(run)
    before = json.loads(served.web_file.read_text())
    os.kill(before["pid"], signal.SIGKILL)
    ended = finish(run)
    assert (ended.code, len(ended.named("done"))) == (0, 1)

    def is_back():
        now = json.loads(served.web_file.read_text())
        return now["pid"] != before["pid"] and now["url"] != before["url"]

    until(is_back, "the page")
    status, body = served.ask("/readyz")
    assert (status, json.loads(body)["front"]) == (200, "ready")
    assert served.web_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
@pytest.mark.fault("F46")
def test_on_a_full_disk_for_logs_a_job_runs_to_its_end_and_the_lines_are_counted(tmp_path):
    made = Served(tmp_path, log_file="/dev/full", drain_s="0")
    try:
        made.start(stderr="/dev/full")
        ended = finish(made.run(shot_in(tmp_path), tmp_path / "out", "--set", f"prompt={EVIL}"))
        assert (ended.code, len(ended.named("done"))) == (0, 1)
        with made.client() as client:
            health = client.health()
        assert health["lost_log_lines"] > 0
        assert health["front"] == "ready"
        lost = f"gencomp_log_lines_lost_total {float(health['lost_log_lines'])}".encode()
        until(lambda: lost in made.ask("/metrics")[1])
    finally:
        made.close()
    assert not Path("/dev/full.1").exists()
