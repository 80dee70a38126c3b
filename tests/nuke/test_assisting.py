# SPDX-License-Identifier: Apache-2.0
"""The assistant's button: nothing leaves before a click, and every way it can end is a sentence."""

import http.server
import json
import sys
import textwrap
import threading

import pytest

import nuke
from gencomp_nuke import assisting, callbacks
from gencomp_nuke.wrapping import wrapped
from standin.pixels import worker_python

TEXTS = {
    "instruction": "a whale breaches",
    "prompt": "A boat on calm water; a whale breaches behind it.",
    "source_prompt": "A boat on calm water.",
    "source_objects": "boat, water",
    "target_object": "the whale",
}

# A command like gencomp: shows its letter, waits for y, and says what it was asked with.
LIKE_GENCOMP = """
import json, os, sys
log = open({log!r}, "w")
print(json.dumps({{"words": sys.argv[1:], "files": [os.path.exists(w.split("=", 1)[1])
    for w in sys.argv if w.startswith("plate@")]}}), file=log, flush=True)
{before}
print(json.dumps({{"letter": ["To host:1, model m:", "plate frame 1001"], "host": "host:1"}}))
sys.stdout.flush()
said = sys.stdin.readline()
print(json.dumps(said), file=log, flush=True)
if said.strip() != "y":
    sys.stderr.write("Nothing was sent.\\n")
    sys.exit(2)
{after}
print({answer!r})
"""


@pytest.fixture
def gencomp(home, tmp_path, monkeypatch):
    """Return a function that puts a command in gencomp's place, and one that reads its log."""
    log = tmp_path / "said.txt"

    def put(before="", after="", answer=None):
        script = tmp_path / "like_gencomp.py"
        text = LIKE_GENCOMP.format(
            log=str(log),
            before=textwrap.dedent(before),
            after=textwrap.dedent(after),
            answer=json.dumps({"knobs": TEXTS}) if answer is None else answer,
        )
        script.write_text(text, encoding="utf-8")
        monkeypatch.setenv("GENCOMP_COMMAND", f"{sys.executable} {script}")

    put()
    put.log = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    put.path = log
    return put


@pytest.fixture
def ask(monkeypatch):
    """Return what the artist was asked; the answer is Yes until a test says otherwise."""
    shown = []

    def answer(text):
        shown.append(text)
        return answer.yes

    answer.yes = True
    monkeypatch.setattr(nuke, "ask", answer, raising=False)
    return shown, answer


@pytest.fixture
def gizmo(app, shot, read, gencomp, ask, tmp_path):
    app.save(tmp_path / "comp.nk")
    made = nuke.createNode("DynVFX")
    made.setInput(0, read("plate/plate.%04d.exr"))
    made["instruction"].setValue("a  whale breaches")
    app.undo_steps.clear()
    return made


def pressed(app, gizmo):
    """Press the button and let Nuke's events happen until the assistant is done."""
    callbacks.press(gizmo, "assist")
    running = assisting._running.get(str(gizmo["gc_id"].value()))
    if running is not None:
        app.process_events(lambda: running.is_over)


def texts(gizmo):
    return {name: str(gizmo[name].value()) for name in TEXTS if name != "instruction"}


def test_a_yes_fills_the_four_texts_in_one_undo_step(app, gizmo, gencomp, ask):
    pressed(app, gizmo)
    assert texts(gizmo) == {name: TEXTS[name] for name in TEXTS if name != "instruction"}
    assert app.undo_steps == ["DynVFX1 texts"]
    assert "read them" in " ".join(str(gizmo["gc_status"].value()).split())
    assert gencomp.log()[1] == "y\n"


def test_the_letter_is_shown_before_anything_is_sent(app, gizmo, gencomp, ask):
    pressed(app, gizmo)
    shown, _ = ask
    assert shown == [
        "This would leave this machine. Send it?\n\nTo host:1, model m:\nplate frame 1001"
    ]


def test_first_middle_and_last_frame_are_rendered_and_gone_afterwards(app, gizmo, gencomp, ask):
    pressed(app, gizmo)
    words = gencomp.log()[0]["words"]
    assert words[:3] == ["assist", "dynvfx", "--converse"]
    inputs = [word for word in words if word.startswith("plate@")]
    assert [word.split("=")[0] for word in inputs] == ["plate@1001", "plate@1002", "plate@1004"]
    assert gencomp.log()[0]["files"] == [True, True, True]
    assert words[words.index("--instruction") + 1] == "a whale breaches"
    assert words[words.index("--working-space") + 1] == "linear"
    assert not any(assisting.Path(word.split("=", 1)[1]).exists() for word in inputs)


def test_a_no_sends_nothing_and_changes_nothing(app, gizmo, gencomp, ask):
    ask[1].yes = False
    pressed(app, gizmo)
    assert "y\n" not in gencomp.log()
    assert set(texts(gizmo).values()) == {""}
    assert app.undo_steps == []
    assert gizmo["gc_note"].value() != "failed"


def refused(app, gizmo):
    pressed(app, gizmo)
    assert gizmo["gc_note"].value() != "failed"  # No result was asked for.
    assert set(texts(gizmo).values()) == {""}
    return " ".join(str(gizmo["gc_status"].value()).split())


def test_an_assistant_that_is_off_is_a_sentence_and_nobody_is_asked(app, gizmo, gencomp, ask):
    gencomp(before="sys.stderr.write('gencomp: The assistant is off.\\n'); sys.exit(2)")
    assert refused(app, gizmo) == "The assistant is off."
    assert ask[0] == []


def test_an_endpoint_that_fails_is_quoted(app, gizmo, gencomp, ask):
    gencomp(after="sys.stderr.write('noise\\ngencomp: host:1 refused with 500.\\n'); sys.exit(4)")
    assert refused(app, gizmo) == "host:1 refused with 500."


@pytest.mark.parametrize("answer", ["Sure!", "[1]", "{}", '{"knobs": {"prompt": "x"}}'])
def test_an_answer_that_is_none_changes_no_knob(app, gizmo, gencomp, ask, answer):
    gencomp(answer=answer)
    assert "gencomp assist" in refused(app, gizmo)


def test_a_command_that_cannot_be_started_names_the_setting(app, gizmo, ask, monkeypatch):
    monkeypatch.setenv("GENCOMP_COMMAND", "/nowhere/gencomp")
    assert "GENCOMP_COMMAND" in refused(app, gizmo)


def test_without_an_instruction_nothing_is_rendered(app, gizmo, gencomp, ask):
    gizmo["instruction"].setValue(" ")
    assert "no instruction" in refused(app, gizmo)
    assert app.rendered == []
    assert not gencomp.path.exists()


def test_without_a_plate_it_says_so(app, gizmo, gencomp, ask):
    gizmo.setInput(0, None)
    assert "no plate" in refused(app, gizmo)


def test_a_second_press_while_it_asks_does_nothing(app, gizmo, gencomp, ask):
    gencomp(after="import time; time.sleep(0.3)")
    callbacks.press(gizmo, "assist")
    running = assisting._running[str(gizmo["gc_id"].value())]
    callbacks.press(gizmo, "assist")
    assert assisting._running[str(gizmo["gc_id"].value())] is running
    app.process_events(lambda: running.is_over)
    assert len(ask[0]) == 1


def test_cancel_ends_the_wait_for_an_answer(app, gizmo, gencomp, ask):
    gencomp(after="import time; time.sleep(60)")
    callbacks.press(gizmo, "assist")
    running = assisting._running[str(gizmo["gc_id"].value())]
    app.process_events(lambda: len(ask[0]) == 1)
    callbacks.cancel(gizmo)
    app.process_events(lambda: running.is_over)
    assert gizmo["gc_note"].value() != "failed"
    assert set(texts(gizmo).values()) == {""}


def test_a_node_that_was_deleted_meanwhile_is_left_alone(app, gizmo, gencomp, ask):
    gencomp(after="import time; time.sleep(0.3)")
    callbacks.press(gizmo, "assist")
    running = assisting._running[str(gizmo["gc_id"].value())]
    app.process_events(lambda: len(ask[0]) == 1)
    nuke.delete(gizmo)
    app.process_events(lambda: running.is_over)
    assert assisting._running == {}


def test_without_an_interface_nobody_could_agree(terminal, shot, read, tmp_path, gencomp, capsys):
    made = nuke.createNode("DynVFX", inpanel=False)
    made["instruction"].setValue("a whale")
    callbacks.press(made, "assist")
    said = wrapped(
        "An assistant is asked in a Nuke with an interface, where you see what would leave. "
        "Use 'gencomp assist dynvfx' here."
    )
    assert made["gc_status"].value() == said
    assert not gencomp.path.exists()


@pytest.mark.slow
def test_the_real_command_asks_a_real_endpoint_on_loopback(
    app, shot, read, ask, home, tmp_path, monkeypatch
):
    asked = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            texts = {**TEXTS, "source_objects": ["boat", "water"]}
            body = json.dumps({"choices": [{"message": {"content": json.dumps(texts)}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # As Nuke's own PYTHONPATH would, the tests' would not reach the command; it is given here.
    root = assisting.Path(__file__).resolve().parent.parent.parent
    script = tmp_path / "gencomp.py"
    rooms = [str(root / room) for room in ("protocol", "server")]
    script.write_text(
        f"import sys\nsys.path[:0] = {rooms!r}\n"
        "from gencomp_server.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    monkeypatch.setenv("GENCOMP_COMMAND", f"{worker_python()} {script}")
    monkeypatch.setenv("GENCOMP_ALLOW_NETWORK", "true")
    monkeypatch.setenv("GENCOMP_ASSISTANT_URL", f"http://127.0.0.1:{service.server_port}/v1")
    monkeypatch.setenv("GENCOMP_ASSISTANT_MODEL", "looks-well")
    app.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("DynVFX")
    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    gizmo["instruction"].setValue("a whale breaches")
    try:
        pressed(app, gizmo)
    finally:
        service.shutdown()
        service.server_close()
    assert texts(gizmo)["source_objects"] == "boat, water"
    (letter,), host = ask[0], f"127.0.0.1:{service.server_port}"
    assert f"To {host}, model looks-well:" in letter
    shown = [line.split(",")[0].strip() for line in letter.splitlines() if "plate frame" in line]
    assert shown == [f"plate frame {n}" for n in (1001, 1002, 1004)]
    pictures = [p for p in asked[0]["messages"][1]["content"] if p["type"] == "image_url"]
    assert len(pictures) == 3
