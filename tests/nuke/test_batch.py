# SPDX-License-Identifier: Apache-2.0
"""Generating without an interface: one node from a script, and the program for ``nuke -t``."""

import os
import signal
import threading

import pytest

from fakes.shot import connect
from gencomp_nuke import batch, bringing, lock
from gencomp_protocol.errors import BadMatte, Cancelled, MissingInput

RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")


def test_generate_blocks_until_the_node_plays_its_result(terminal, server, comp):
    gizmo = comp(terminal)
    batch.generate(gizmo)
    assert gizmo["gc_status"].value() == "Plays v001, frames 1001-1004."
    assert gizmo.sample("rgba.red", 16, 48 - 16, frame=1002) == 0.25


@pytest.mark.fault("F44")
def test_the_button_does_the_same_in_a_terminal_session(terminal, server, comp):
    gizmo = comp(terminal)
    gizmo["gc_generate"].execute()
    assert gizmo["gc_status"].value() == "Plays v001, frames 1001-1004."


def test_a_refusal_is_raised_for_the_script_and_said_on_the_node(terminal, server, comp):
    server.refuses = BadMatte("Matte 'a' is empty.", hint="Paint something.")
    gizmo = comp(terminal)
    with pytest.raises(BadMatte, match="Matte 'a' is empty"):
        batch.generate(gizmo)
    assert gizmo["gc_status"].value() == "Matte 'a' is empty. Paint something."


@pytest.mark.fault("F44")
def test_a_missing_plate_is_raised_before_any_server_is_looked_for(terminal, comp):
    gizmo = comp(terminal)
    gizmo.setInput(0, None)
    with pytest.raises(MissingInput, match="Omnimatte1 has no plate"):
        batch.generate(gizmo)


@pytest.mark.fault("F44")
def test_a_rendering_that_is_stopped_ends_the_job(terminal, server, comp):
    gizmo = comp(terminal)
    gizmo["gc_files"].setValue(False)
    terminal.cancel_render_after = 1
    with pytest.raises(Cancelled):
        batch.generate(gizmo)
    assert server.jobs == {}


@pytest.mark.fault("F44")
def test_nothing_waits_for_an_event_loop_that_a_terminal_does_not_have(
    terminal, server, comp, monkeypatch
):
    import nuke

    def never(*_):
        raise AssertionError("executeInMainThread would never run here")

    monkeypatch.setattr(nuke, "executeInMainThread", never)
    batch.generate(comp(terminal))


# --- the program ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved():
    """Return a list for the text of the script, which is laid once."""
    return []


@pytest.fixture
def script(terminal, server, comp, tmp_path, saved):
    """Return a saved script of two nodes of one frame: a DynVFX, and an Omnimatte of its picture.

    The fake server gives the DynVFX layers that it does not play, so it passes its plate.
    """
    import nuke

    if saved:
        (tmp_path / "comp.nk").write_text(saved[0], encoding="utf-8")
        return tmp_path / "comp.nk"
    second = comp(terminal)
    first = nuke.createNode("DynVFX")
    connect(first, "Plate", nuke.toNode("plate"))
    connect(second, "Plate", first)
    for gizmo in (first, second):
        for knob, value in (("gc_range", "custom"), ("gc_first", 1002), ("gc_last", 1002)):
            gizmo[knob].setValue(value)
    terminal.save()
    saved.append((tmp_path / "comp.nk").read_text(encoding="utf-8"))
    return tmp_path / "comp.nk"


def node(name):
    import nuke

    return nuke.toNode(name)


def folder_of(name):
    return node(name)["gc_folder"].evaluate()


def test_all_nodes_get_their_results_those_that_others_depend_on_first(script, server, capsys):
    assert batch.main([str(script)]) == 0
    assert [request.system for request in server.requests] == ["dynvfx", "omnimatte"]
    said = capsys.readouterr().out.splitlines()
    ends = [line for line in said if line.endswith("result.")]
    assert ends == ["DynVFX1 has a new result.", "Omnimatte1 has a new result."]
    assert not any("Error:" in line for line in said)
    assert folder_of("Omnimatte1").endswith("/v001")


def test_what_is_there_is_not_made_again_and_nothing_is_rendered_for_it(
    terminal, script, server, capsys
):
    batch.main([str(script)])
    terminal.rendered.clear()
    assert batch.main([str(script)]) == 0
    assert (len(server.jobs), terminal.rendered) == (2, [])
    said = capsys.readouterr().out
    assert said.endswith("DynVFX1 has its result.\nOmnimatte1 has its result.\n")
    assert folder_of("DynVFX1").endswith("/v001")


def test_a_turned_knob_is_made_anew_and_turned_back_is_found(script, server):
    import nuke

    batch.main([str(script), "--nodes=DynVFX1", "--save"])
    node("DynVFX1")["seed"].setValue(5)
    nuke.scriptSave("")
    batch.main([str(script), "--nodes=DynVFX1", "--save"])
    assert folder_of("DynVFX1").endswith("/v002")
    node("DynVFX1")["seed"].setValue(0)
    nuke.scriptSave("")
    assert batch.main([str(script), "--nodes=DynVFX1"]) == 0
    assert folder_of("DynVFX1").endswith("/v001")
    assert len(server.jobs) == 2


def test_frames_and_nodes_can_be_chosen(script, server, capsys):
    assert batch.main([str(script), "--frames=1003-1004", "--nodes=DynVFX1"]) == 0
    assert [str(request.frames) for request in server.requests] == ["1003-1004"]
    assert node("DynVFX1")["gc_result_first"].value() == 1003
    assert folder_of("Omnimatte1") == ""


def test_what_a_chosen_node_depends_on_is_played_and_not_made(script, server, capsys):
    assert batch.main([str(script), "--nodes=Omnimatte1"]) == 1
    assert server.jobs == {}
    assert "Error: DynVFX1 has no result of what it is now in" in capsys.readouterr().out


def test_a_copy_plays_the_results_and_the_script_stays_as_it_was(script, server, tmp_path):
    import nuke

    before = script.read_text(encoding="utf-8")
    words = [str(script), "--nodes=DynVFX1", f"--save={tmp_path / 'comp.farm.nk'}"]
    assert batch.main(words) == 0
    assert script.read_text(encoding="utf-8") == before
    assert sorted(p.name for p in tmp_path.glob("*.nk")) == ["comp.farm.nk", "comp.nk"]
    nuke.scriptOpen(str(tmp_path / "comp.farm.nk"))
    assert folder_of("DynVFX1").endswith("/v001")


def test_a_node_that_fails_is_one_line_and_what_hangs_on_it_another(script, server, capsys):
    server.refuses = BadMatte("Matte 'a' is empty.", hint="Paint something.")
    assert batch.main([str(script), "--openjd"]) == 1
    errors = [line for line in capsys.readouterr().out.splitlines() if "Error:" in line]
    assert errors == [
        "Error: Matte 'a' is empty. Paint something.",
        "Error: Omnimatte1 depends on DynVFX1, which has no result.",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.nk"], "There is no script nowhere.nk."),
        (["SCRIPT", "--frames=1-x"], "'1-x' is not a frame range."),
        (["SCRIPT", "--nodes=Blur1"], "There is no node 'Blur1' of gencomp's"),
        (["SCRIPT", "--save=/elsewhere/comp.nk"], "does not lie beside the script."),
    ],
)
def test_a_command_line_that_cannot_be_used_ends_with_two(script, server, capsys, words, sentence):
    assert batch.main([str(script) if word == "SCRIPT" else word for word in words]) == 2
    assert sentence in capsys.readouterr().out
    assert server.jobs == {}


def test_a_script_without_a_node_of_ours_ends_with_two(terminal, tmp_path, capsys):
    terminal.save(tmp_path / "plain.nk")
    assert batch.main([str(tmp_path / "plain.nk")]) == 2
    assert capsys.readouterr().out == "Error: The script has no node of gencomp's.\n"


def test_an_option_that_is_not_known_ends_with_two(capsys):
    with pytest.raises(SystemExit) as ended:
        batch.main(["comp.nk", "--quickly"])
    assert ended.value.code == 2


def test_read_makes_nothing_and_tells_whether_all_is_there(script, server, capsys):
    words = [str(script), "--nodes=DynVFX1"]
    assert batch.main([*words, "--policy=read"]) == 1
    assert server.jobs == {}
    batch.main(words)
    assert batch.main([*words, "--policy=read"]) == 0


def test_error_waits_for_nobody_and_says_try_again(script, server, capsys):
    with lock.take(cache_of(script, "DynVFX1"), on_wait=None):
        assert batch.main([str(script), "--policy=error"]) == 3
    assert f"is being made by process {os.getpid()} of" in capsys.readouterr().out


def test_compute_waits_and_plays_what_the_other_one_made(script, server, capsys, monkeypatch):
    batch.main([str(script), "--nodes=DynVFX1", "--save"])
    cache = cache_of(script, "DynVFX1")
    (cache / "v001").rename(cache / "away")
    held = lock.take(cache, on_wait=None)

    def give_back(stop, seconds):
        (cache / "away").rename(cache / "v001")
        held.release()

    monkeypatch.setattr(batch.Stop, "pause", give_back)
    assert batch.main([str(script), "--nodes=DynVFX1"]) == 0
    assert len(server.jobs) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith("Waiting for it.")
    assert said[-1] == "DynVFX1 has its result."


def test_a_result_that_the_disk_shows_late_is_waited_for_and_not_made_again(
    script, server, monkeypatch
):
    """As a network disk does with a folder that another machine has just renamed."""
    batch.main([str(script), "--nodes=DynVFX1", "--save"])
    cache = cache_of(script, "DynVFX1")
    (cache / "v001").rename(cache / "away")
    held = lock.take(cache, on_wait=None)
    held.leaves = "v001"
    paused = []

    def pass_time(stop, seconds):
        paused.append(seconds)
        if len(paused) == 1:
            held.release()
        elif len(paused) == 3:  # The folder is there, and a file in it is not yet.
            (cache / "away").rename(cache / "v001")
            (cache / "v001/manifest.json").rename(cache / "manifest.json")
        elif len(paused) == 5:
            (cache / "manifest.json").rename(cache / "v001/manifest.json")

    monkeypatch.setattr(batch.Stop, "pause", pass_time)
    assert batch.main([str(script), "--nodes=DynVFX1"]) == 0
    assert (len(server.jobs), len(paused)) == (1, 5)


def test_a_result_that_never_shows_is_made(script, server, monkeypatch):
    batch.main([str(script), "--nodes=DynVFX1", "--save"])
    cache = cache_of(script, "DynVFX1")
    (cache / "v001").rename(cache / "away")
    held = lock.take(cache, on_wait=None)
    held.leaves = "v001"
    paused = []
    monkeypatch.setattr(
        batch.Stop, "pause", lambda *_: (paused.append(1), len(paused) == 1 and held.release())
    )
    assert batch.main([str(script), "--nodes=DynVFX1"]) == 0
    assert (len(server.jobs), len(paused)) == (2, 1 + bringing._LATE_S)


def test_a_signal_ends_the_job_and_says_try_again(script, server, capsys):
    server.goes_on.clear()
    was = signal.getsignal(signal.SIGTERM)

    def end():
        server.is_running_job.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    assert batch.main([str(script)]) == 3
    thread.join()
    assert server.cancelled == ["job1"]
    assert signal.getsignal(signal.SIGTERM) is was
    assert "Error:" not in capsys.readouterr().out


def cache_of(script, name):
    """Return the cache folder of a node; opens the script."""
    import nuke
    from gencomp_nuke import node as nodes
    from gencomp_nuke import prefs

    nuke.scriptOpen(str(script))
    return nodes.cache_folder(nuke.toNode(name), prefs.load())
