# SPDX-License-Identifier: Apache-2.0
"""What the command says and how it ends, without a server."""

import io
import json
import subprocess
import sys

import pytest

from gencomp_protocol import LayerReady, Progressed, Sent, StateChanged, Warned
from gencomp_protocol.errors import (
    BadKnob,
    Cancelled,
    DiskFull,
    InternalError,
    LinkTimeout,
    MalformedMessage,
    ServerUnreachable,
    Unauthorised,
    UnknownJob,
    UnwritableOutput,
    VersionMismatch,
    WorkerLost,
)
from gencomp_server.cli import _Interrupt, _parsed, exit_code, main
from gencomp_server.progress import JsonNarrator, PlainNarrator, RichNarrator, narrator_for

HEAVY = ("torch", "cv2", "OpenImageIO", "numpy", "rich", "gencomp_server.systems")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def spoken(narrator, out):
    narrator.expect(2, 4)
    narrator.note("8-bit")
    for event in (
        StateChanged("7", "receiving"),
        Sent("7", "plate", 1001),
        Sent("7", "plate", 1002),
        StateChanged("7", "queued", 3),
        StateChanged("7", "running"),
        Progressed("7", "solve", 1, 2, 200.0),
        Warned("7", "It drifts [2 px]."),
        LayerReady("7", "a", 1001, "out/a/a.1001.exr"),
    ):
        narrator.event(event)
    narrator.done(
        {
            "layers": {"a": "out/a/a.%04d.exr"},
            "contact_sheet": "out/contact_sheet.png",
            "manifest": "out/manifest.json",
            "seconds": 65.2,
        }
    )
    narrator.close()
    return out.getvalue()


def test_plain_lines_tell_a_run_from_first_to_last():
    out = io.StringIO()
    assert spoken(PlainNarrator(out, io.StringIO()), out).splitlines() == [
        "note: 8-bit",
        "the server takes the pictures",
        "pictures sent 1/2",
        "pictures sent 2/2",
        "every picture is in order; the job waits for its turn, 3 in the queue",
        "the job runs",
        "solve 1/2, 3 min 20 s to go",
        "warning: It drifts [2 px].",
        "delivered 1/4",
        "done in 1 min 05 s",
        "a  out/a/a.%04d.exr",
        "contact sheet  out/contact_sheet.png",
        "manifest  out/manifest.json",
    ]


def test_a_long_stage_takes_a_plain_line_at_every_tenth_only():
    out = io.StringIO()
    narrator = PlainNarrator(out, io.StringIO())
    for step in range(1, 1001):
        narrator.event(Progressed("7", "solve", step, 1000))
    assert len(out.getvalue().splitlines()) == 11


def test_json_is_one_object_a_line():
    out = io.StringIO()
    lines = [
        json.loads(line) for line in spoken(JsonNarrator(out, io.StringIO()), out).splitlines()
    ]
    assert [line["event"] for line in lines] == [
        *("expect", "note", "state", "sent", "sent", "state", "state", "progress", "warning"),
        *("layer", "done"),
    ]
    assert lines[7] == {
        "event": "progress",
        "job": "7",
        "stage": "solve",
        "step": 1,
        "total": 2,
        "eta_s": 200.0,
    }


def test_a_failure_in_json_is_also_a_sentence_on_standard_error():
    out, err = io.StringIO(), io.StringIO()
    JsonNarrator(out, err).failed(BadKnob("No such knob.", hint="Try another.", knob="x"))
    assert json.loads(out.getvalue())["code"] == "bad-knob"
    assert err.getvalue() == "gencomp: No such knob. Try another.\n"


def test_bars_show_stage_warning_and_result_and_brackets_are_kept():
    out = Terminal()
    text = spoken(RichNarrator(out, io.StringIO()), out)
    for words in ("solve", "It drifts [2 px].", "sent", "out/a/a.%04d.exr", "1 min 05 s"):
        assert words in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rnu"], "there is no command 'rnu'; did you mean 'run'?"),
        (["doktor"], "there is no command 'doktor'; did you mean 'doctor'?"),
        (["keys", "lst"], "there is no command 'lst'; did you mean 'list'?"),
        (["keys", "xyzzy"], "there is no command 'xyzzy'; there is new, "),
    ],
)
def test_a_command_that_there_is_not_names_the_nearest(words, told, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_bars_are_for_terminals_and_lines_for_the_rest():
    assert isinstance(narrator_for(io.StringIO(), io.StringIO(), as_json=False), PlainNarrator)
    assert isinstance(narrator_for(Terminal(), io.StringIO(), as_json=True), JsonNarrator)
    bars = narrator_for(Terminal(), io.StringIO(), as_json=False)
    bars.close()
    assert isinstance(bars, RichNarrator)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadKnob("x"), 2),
        (UnwritableOutput("x"), 2),
        (UnknownJob("x"), 2),
        (ServerUnreachable("x"), 3),
        (LinkTimeout("x"), 3),
        (Unauthorised("x"), 3),
        (VersionMismatch("x"), 3),
        (MalformedMessage("x"), 4),
        (DiskFull("x"), 4),
        (WorkerLost("x"), 4),
        (InternalError("x"), 4),
        (Cancelled("x"), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error) == code


def test_importing_the_command_imports_nothing_heavy():
    code = f"import sys, gencomp_server.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["serve", "--help"]])
def test_help_answers_with_0(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    assert "usage: gencomp" in capsys.readouterr().out


def test_a_wrong_argument_is_one_sentence_and_2(capsys):
    with pytest.raises(SystemExit) as left:
        main(["run", "cutout"])
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "gencomp: the following arguments are required: --out. See gencomp run --help.\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--input", "plate=a.mov"], "Render to EXR first"),
        (["--input", "plate"], "is not NAME=PATTERN"),
        (["--frames", "1048-1001"], "runs backwards"),
        (["--frames", "all"], "is not a frame range"),
        (["--set", "seed"], "--set 'seed' has no value"),
        (["--set", "seed=1", "--set", "seed=2"], "--set names 'seed' twice"),
        (["--colourspace", "srgb"], "--colourspace 'srgb' has no value"),
    ],
)
def test_what_is_wrong_with_the_words_is_said_before_anything_starts(
    tmp_path, capsys, words, sentence
):
    assert main(["run", "cutout", "--out", str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_when_no_server_runs_jobs_says_how_to_start_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    monkeypatch.delenv("GENCOMP_SERVER", raising=False)
    assert main(["jobs"]) == 3
    assert "gencomp serve" in capsys.readouterr().err


def test_an_unforeseen_fault_is_a_sentence_and_its_traceback_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("gencomp_server.cli._named_server", lambda address: 1 / 0)
    assert main(["jobs"]) == 4
    said = capsys.readouterr().err
    assert "Traceback" not in said
    kept = next(tmp_path.glob("gencomp-*.txt"))
    assert str(kept) in said
    assert "ZeroDivisionError" in kept.read_text()


def test_ctrl_c_before_the_job_is_followed_leaves_at_once():
    with pytest.raises(KeyboardInterrupt):
        _Interrupt().hear(2, None)


def test_ctrl_c_while_the_job_is_followed_cancels_and_twice_leaves(capsys):
    interrupt = _Interrupt()
    assert interrupt.asked() is False
    interrupt.hear(2, None)
    assert interrupt.asked() is True
    with pytest.raises(KeyboardInterrupt):
        interrupt.hear(2, None)


def test_systems_lists_inputs_and_knobs_of_each(capsys):
    assert main(["systems"]) == 0
    said = capsys.readouterr().out
    assert "omnimatte" in said
    assert "--input matte.*" in said
    assert "--set seed=0" in said


def test_systems_as_json_is_the_declaration(capsys):
    assert main(["systems", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "omnimatte"


def test_a_shot_is_written_from_its_spec(tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    spec.write_text("width = 64\nheight = 48\nframes = 2\n")
    assert main(["shot", str(spec), "--out", str(tmp_path / "shot")]) == 0
    assert (tmp_path / "shot" / "plate" / "plate.1002.exr").is_file()


def test_a_shot_without_a_spec_on_disk_is_refused(tmp_path, capsys):
    assert main(["shot", str(tmp_path / "none.toml"), "--out", str(tmp_path / "shot")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("words", [("--frames", "-2-1"), ("--frames=-2-1",), ("--frames", "-5")])
def test_a_range_that_begins_before_frame_zero_is_typed_like_any_other(words):
    args = _parsed(["run", "omnimatte", *words, "--out", "out"])
    assert args.frames == words[-1].removeprefix("--frames=")


def test_words_without_quotes_around_them_are_told_how_to_be_quoted(capsys):
    words = ["plan", "overplusplus", "--set", "prompt=soft", "warm", "shadow", "--json"]
    with pytest.raises(SystemExit) as ended:
        _parsed(words)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "unrecognized arguments: warm shadow" in told
    assert 'put quotes around it: --set "prompt=soft warm shadow".' in told


def test_a_stray_word_elsewhere_is_told_nothing_of_quotes(capsys):
    with pytest.raises(SystemExit):
        _parsed(["plan", "overplusplus", "--json", "shadow"])
    assert "quotes" not in capsys.readouterr().err


def test_the_systems_are_listed_with_the_choices_of_a_knob(capsys):
    assert main(["systems"]) == 0
    assert "--set quality=final (draft, final)  draft:" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("weights", "list"), ("systems",), ("weights", "path")])
def test_a_reader_who_has_seen_enough_ends_the_command_without_a_word(words):
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(':');"
    code += "from gencomp_server.cli import main; sys.exit(main())"
    roots = ":".join(path for path in sys.path if path)
    command = [sys.executable, "-c", code, roots, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        told = run.stderr.read()
        assert run.wait() == 141
    assert told == b""
