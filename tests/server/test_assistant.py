# SPDX-License-Identifier: Apache-2.0
"""The assistant, on an endpoint on loopback that answers well, badly, late or not at all."""

import base64
import http.server
import io
import json
import shlex
import socket
import threading
import time

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, ToolFailed
from gencomp_protocol.frames import Box
from gencomp_server.assistant import (
    Endpoint,
    Picture,
    caption,
    endpoint_of,
    post,
    read_caption,
    read_suggestion,
    suggest,
    vfx_letter,
)
from gencomp_server.cli import main
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.keyframes import pick

GOOD = {
    "source_prompt": "A boat on calm water.",
    "prompt": "A boat on calm water; a whale breaches behind it.",
    "source_objects": ["boat", "water"],
    "target_object": "the whale",
}
PNG = b"\x89PNG not read by the endpoint"
PICTURES = (Picture("plate frame 1001", 4, 2, PNG), Picture("plate frame 1003", 4, 2, PNG))


class Service:
    """An endpoint whose answers a test sets; keeps what it was sent."""

    def __init__(self):
        self.asked, self.headers = [], []
        self.reply = lambda handler: self.say(handler, json.dumps(GOOD))
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.asked.append((self.path, json.loads(body)))
                service.headers.append(dict(self.headers))
                service.reply(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def say(self, handler, text, status=200):
        """Answer as such endpoints do, with this text."""
        self.send(handler, json.dumps({"choices": [{"message": {"content": text}}]}), status)

    def send(self, handler, body, status=200, length=None):
        """Answer with these bytes, and a length that need not be theirs."""
        data = body.encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Service()
    yield made
    made.close()


def endpoint(service, **changes):
    return Endpoint(service.url, "looks-well", **{"key": "sk-secret", "timeout_s": 5.0, **changes})


def refused(service, **changes):
    """Return the sentence with which an answer is refused."""
    with pytest.raises(ToolFailed) as caught:
        suggest(endpoint(service, **changes), "add a whale", PICTURES, lambda letter: True)
    assert f"127.0.0.1:{service.server.server_port}" in caught.value.message
    return caught.value.message


# --- what leaves ---------------------------------------------------------------------------------


def test_a_good_answer_becomes_values_of_knobs(service):
    found = suggest(endpoint(service), "add a whale", PICTURES, lambda letter: True)
    assert found.knobs("add a whale") == {
        "instruction": "add a whale",
        "prompt": "A boat on calm water; a whale breaches behind it.",
        "source_prompt": "A boat on calm water.",
        "source_objects": "boat, water",
        "target_object": "the whale",
    }


def test_nothing_leaves_where_nobody_agrees(service):
    assert suggest(endpoint(service), "add a whale", PICTURES, lambda letter: False) is None
    assert caption(endpoint(service), PICTURES, lambda letter: False) is None
    assert service.asked == []


def test_what_is_shown_beforehand_is_all_that_leaves(service):
    letter = vfx_letter(endpoint(service), "add  a\nwhale", PICTURES)
    post(letter)
    shown = "\n".join(letter.tells)
    assert f"To 127.0.0.1:{service.server.server_port}, model looks-well:" in shown
    assert "plate frame 1001, 4x2" in shown
    path, sent = service.asked[0]
    assert path == "/v1/chat/completions"
    assert set(sent) == {"model", "messages", "stream"}
    guide, asked = sent["messages"]
    texts = [guide["content"], *(p["text"] for p in asked["content"] if p["type"] == "text")]
    assert "The artist wants: add a whale" in texts
    for text in texts:
        assert all(line in shown for line in text.splitlines())
    pictures = [p["image_url"]["url"] for p in asked["content"] if p["type"] == "image_url"]
    assert pictures == ["data:image/png;base64,iVBORyBub3QgcmVhZCBieSB0aGUgZW5kcG9pbnQ="] * 2


def test_the_key_is_sent_and_never_shown(service):
    one = endpoint(service)
    letter = vfx_letter(one, "add a whale", PICTURES)
    post(letter)
    assert service.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(one) + repr(letter) + "".join(letter.tells)


@pytest.mark.parametrize("status", [200, 401])
def test_a_key_that_the_endpoint_repeats_is_not_shown(service, status):
    service.reply = lambda handler: service.say(handler, "Bad key sk-secret here", status)
    said = refused(service)
    assert "Bad key (the key) here" in said
    assert "sk-secret" not in said


@pytest.mark.parametrize(
    ("url", "is_told"),
    [("http://studio/v1", True), ("https://studio/v1", False), ("http://127.0.0.1:8080/v1", False)],
)
def test_an_address_on_which_anybody_can_read_along_is_told(url, is_told, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    tells = vfx_letter(Endpoint(url, "m"), "add a whale", PICTURES).tells
    assert ("not encrypted" in tells[0]) == is_told


def test_a_proxy_on_the_way_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://user:pass@proxy.studio:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    letter = vfx_letter(Endpoint("http://host.example/v1", "m"), "add a whale", ())
    assert letter.tells[0].startswith(
        "To host.example, model m, through the proxy proxy.studio:3128, not encrypted"
    )


@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_an_empty_instruction_is_refused(instruction):
    with pytest.raises(BadKnob, match="no instruction"):
        vfx_letter(Endpoint("http://host/v1", "m"), instruction, ())


# --- an endpoint that fails ----------------------------------------------------------------------


def test_an_endpoint_that_is_down_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    letter = vfx_letter(Endpoint(f"http://127.0.0.1:{port}/v1", "m"), "add a whale", ())
    with pytest.raises(ToolFailed, match=rf"127\.0\.0\.1:{port} does not answer"):
        post(letter)


def test_an_endpoint_that_is_slow_is_left(service):
    release = threading.Event()
    service.reply = lambda handler: release.wait(20)
    try:
        assert "did not answer within 0.3 seconds" in refused(service, timeout_s=0.3)
    finally:
        release.set()


def test_an_endpoint_that_drips_is_left(service):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(200):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.05)

    service.reply = drip
    assert "did not answer within 0.5 seconds" in refused(service, timeout_s=0.5)


def test_an_endpoint_whose_head_drips_is_left(service):
    def drip(handler):
        for n in range(200):
            try:
                handler.wfile.write(b"X-%d: 1\r\n" % n if n else b"HTTP/1.1 200 OK\r\n")
            except OSError:
                return
            time.sleep(0.05)

    service.reply = drip
    started = time.monotonic()
    assert "did not answer within 0.5 seconds" in refused(service, timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_a_refusal_whose_words_do_not_come_is_a_refusal(service):
    def stall(handler):
        handler.send_response(503)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\n")

    service.reply = stall
    assert "refused with 503: Service Unavailable" in refused(service)


def test_what_is_quoted_cannot_steer_a_terminal(service):
    service.reply = lambda handler: service.send(handler, "no\x1b[2J credit", 500)
    assert "no\N{REPLACEMENT CHARACTER}[2J credit" in refused(service)


def test_an_endpoint_that_refuses_is_quoted(service):
    service.reply = lambda handler: service.send(handler, '{"error": "no credit"}', 500)
    assert 'refused with 500: {"error": "no credit"}' in refused(service)


def test_an_answer_that_breaks_off_is_refused(service):
    service.reply = lambda handler: service.send(handler, '{"choices": [', length=5000)
    assert "broke off" in refused(service)


def test_an_answer_without_end_is_refused(service):
    service.reply = lambda handler: service.send(handler, "x" * ((1 << 20) + 1))
    assert "more than 1 MiB" in refused(service)


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": 3}]}',
        "[" * 100_000,
    ],
)
def test_an_answer_of_no_such_endpoint_is_refused(service, body):
    service.reply = lambda handler: service.send(handler, body)
    assert "no OpenAI-compatible endpoint" in refused(service)


def test_an_answer_without_a_text_is_refused(service):
    service.reply = lambda handler: service.say(handler, None)
    assert "without a text" in refused(service)


def test_a_redirection_is_not_followed(service):
    def redirect(handler):
        handler.send_response(307)
        handler.send_header("Location", f"{service.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    service.reply = redirect
    assert "refused with 307" in refused(service)
    assert len(service.asked) == 1


# --- a text that is not what was asked for -------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "prompt is no text"),
        ({"prompt": None}, "prompt is no text"),
        ({"prompt": ["a"]}, "prompt is no text"),
        ({"prompt": "x" * 4001}, "prompt is longer than 4000 characters"),
        ({"prompt": "a\x1b[31m"}, "control characters"),
        ({"source_prompt": 3}, "source_prompt is no text"),
        ({"source_objects": "boat"}, "source_objects is no list"),
        ({"source_objects": []}, "source_objects is no list"),
        ({"source_objects": [1]}, "source_objects is no text"),
        ({"source_objects": ["a"] * 17}, "source_objects is no list"),
        ({"target_object": {}}, "target_object is no text"),
    ],
)
def test_an_answer_that_is_not_as_asked_is_refused_by_what_is_wrong(change, words):
    with pytest.raises(ToolFailed) as caught:
        read_suggestion(json.dumps({**GOOD, **change}))
    assert words in caught.value.message


@pytest.mark.parametrize("said", ["Sure! Here is your prompt.", "", "[1]", '{"prompt": "cut o'])
def test_an_answer_that_is_no_json_object_is_refused(said):
    with pytest.raises(ToolFailed, match="cannot be used"):
        read_suggestion(said)


def test_fences_and_line_breaks_are_taken_off():
    answer = json.dumps({**GOOD, "target_object": "the\n  whale"})
    fenced = f"```json\n{answer}\n```\n"
    assert read_suggestion(fenced).target_object == "the whale"


def test_a_comma_in_a_name_does_not_make_two_of_it():
    found = read_suggestion(json.dumps({**GOOD, "source_objects": ["boat, red", "sea"]}))
    assert found.knobs("x")["source_objects"] == "boat  red, sea"


def test_a_caption_is_one_line(service):
    service.reply = lambda handler: service.say(handler, '{"caption": "A ball\\nrolls."}')
    assert caption(endpoint(service), PICTURES, lambda letter: True) == "A ball rolls."
    with pytest.raises(ToolFailed, match="caption is no text"):
        read_caption("{}")


# --- settings ------------------------------------------------------------------------------------


def test_it_is_off_until_the_settings_allow_the_network():
    with pytest.raises(BadKnob, match="allow_network"):
        endpoint_of(allow_network=False, url="http://127.0.0.1:1/v1", model="m")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"url": ""}, "assistant_url"),
        ({"model": " "}, "assistant_model"),
        ({"url": "host/v1"}, "assistant_url"),
        ({"url": "file:///etc/passwd"}, "assistant_url"),
        ({"url": "ftp://host/v1"}, "assistant_url"),
        ({"url": "http:///v1"}, "assistant_url"),
        ({"url": "http://host/v1?x=1"}, "assistant_url"),
        ({"url": "http://host:99999/v1"}, "assistant_url"),
        ({"url": "http://[::1/v1"}, "assistant_url"),
        ({"url": "http://ho st/v1"}, "assistant_url"),
        ({"url": "http://host/v\u00fc"}, "assistant_url"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(given, name):
    with pytest.raises(BadKnob, match=name):
        endpoint_of(**{"allow_network": True, "url": "http://host/v1", "model": "m", **given})


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(BadKnob, match="assistant_key_file") as caught:
        endpoint_of(allow_network=True, url="http://me:sk-secret@host/v1", model="m")
    assert "sk-secret" not in str(caught.value)


def test_the_key_is_the_first_line_of_its_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("sk-one\nsecond\n")
    made = endpoint_of(allow_network=True, url="http://h/v1", model="m", key_file=str(path))
    assert made.key == "sk-one"


@pytest.mark.parametrize("content", [None, b"", b"\nsk", b"\xff\xfe", "sk-\u00fc".encode()])
def test_a_key_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadKnob, match="assistant_key_file"):
        endpoint_of(allow_network=True, url="http://h/v1", model="m", key_file=str(path))


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def command(service, tmp_path, monkeypatch):
    """Return a runner of ``gencomp assist dynvfx`` on three frames, 600 wide."""
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    monkeypatch.delenv("OCIO", raising=False)
    for name, value in (("ALLOW_NETWORK", "true"), ("ASSISTANT_URL", service.url)):
        monkeypatch.setenv(f"GENCOMP_{name}", value)
    monkeypatch.setenv("GENCOMP_ASSISTANT_MODEL", "looks-well")
    window = Box(0, 0, 599, 299)
    for n in (1001, 1002, 1003, 1004):
        grey = np.full((300, 600, 3), 0.214, np.float16)
        picture = LayerFrame("plate", n, grey, ("R", "G", "B"), window, window)
        write_layer(tmp_path / f"plate.{n}.exr", picture)
    pattern = f"plate={tmp_path}/plate.%04d.exr"
    words = ["assist", "dynvfx", "--input", pattern, "--instruction", "add a whale"]
    return lambda *more: main([*words, *more])


def test_the_command_asks_first_and_prints_arguments_of_a_run(
    command, service, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert command() == 0
    said = capsys.readouterr()
    assert "Send it? [y/N]" in said.err
    assert "plate frame 1001, 512x256" in said.err
    assert "--set 'prompt=A boat on calm water; a whale breaches behind it.' \\\n" in said.out
    assert shlex.split(said.out.replace("\\\n", ""))[-2:] == ["--set", "target_object=the whale"]
    content = service.asked[0][1]["messages"][1]["content"]
    labels = [part["text"] for part in content[1:] if part["type"] == "text"]
    assert labels == ["plate frame 1001", "plate frame 1002", "plate frame 1004"]


@pytest.mark.parametrize("answer", ["", "n\n", "yes please\n"])
def test_the_command_sends_nothing_without_a_yes(command, service, monkeypatch, capsys, answer):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert command() == 2
    said = capsys.readouterr()
    assert service.asked == []
    assert said.out == ""
    assert said.err.endswith("Nothing was sent.\n")


def test_with_yes_it_still_shows_what_leaves_and_json_is_a_map_of_knobs(command, service, capsys):
    assert command("--yes", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["target_object"] == "the whale"
    assert "The artist wants: add a whale" in said.err


def test_what_leaves_is_the_plate_as_a_monitor_shows_it(command, service):
    assert command("--yes") == 0
    part = service.asked[0][1]["messages"][1]["content"][2]
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (256, 512, 3)
    assert np.all(np.abs(picture.astype(int) - 127) <= 1)  # linear .214 is sRGB .5


def test_the_command_is_refused_while_the_network_is_not_allowed(command, monkeypatch, capsys):
    monkeypatch.setenv("GENCOMP_ALLOW_NETWORK", "false")
    assert command("--yes") == 2
    assert "allow_network" in capsys.readouterr().err


def test_an_endpoint_that_fails_ends_the_command_with_four(command, service, capsys):
    service.reply = lambda handler: service.say(handler, "I cannot help with that.")
    assert command("--yes") == 4
    said = capsys.readouterr()
    assert "it is not JSON but: I cannot help with that." in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("frames", "picked"), [((7,), (7,)), ((1, 2), (1, 2)), (range(1001, 1050), (1001, 1025, 1049))]
)
def test_first_middle_and_last_frame_are_looked_at(frames, picked):
    assert pick(list(frames)) == picked


def test_a_program_gets_the_letter_as_a_line_and_then_the_texts(
    command, service, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert command("--converse") == 0
    said = capsys.readouterr()
    letter, answer = (json.loads(line) for line in said.out.splitlines())
    host = f"127.0.0.1:{service.server.server_port}"
    assert letter["host"] == host
    assert letter["letter"][0] == f"To {host}, model looks-well:"
    assert "The artist wants: add a whale" in "\n".join(letter["letter"])
    assert answer["knobs"]["source_objects"] == "boat, water"
    assert said.err == ""


@pytest.mark.parametrize("answer", ["", "n\n"])
def test_a_program_that_does_not_say_yes_sends_nothing(
    command, service, monkeypatch, capsys, answer
):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert command("--converse") == 2
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert service.asked == []


def test_single_frames_are_looked_at_as_they_are(command, service, tmp_path, capsys):
    words = ["assist", "dynvfx", "--instruction", "add a whale", "--yes"]
    for n in (1001, 1003):
        words += ["--input", f"plate@{n}={tmp_path}/plate.{n}.exr"]
    assert main(words) == 0
    content = service.asked[0][1]["messages"][1]["content"]
    labels = [part["text"] for part in content[1:] if part["type"] == "text"]
    assert labels == ["plate frame 1001", "plate frame 1003"]


def test_more_frames_than_a_letter_should_hold_are_refused(command, service, tmp_path, capsys):
    words = ["assist", "dynvfx", "--instruction", "add a whale", "--yes"]
    for n in range(1, 10):
        words += ["--input", f"plate@{n}={tmp_path}/plate.1001.exr"]
    assert main(words) == 2
    assert "more than 8 frames" in capsys.readouterr().err
    assert service.asked == []
