# SPDX-License-Identifier: Apache-2.0
"""``gencomp farm``: reading a Nuke script, a template of Open Job Description, an OpenCue job."""

import json
import sys
import types

import pytest

from gencomp_protocol.errors import BadKnob, ToolFailed
from gencomp_protocol.frames import FrameRange
from gencomp_server import farm
from gencomp_server.cli import main
from gencomp_server.nukescript import read_script

SCRIPT = """#! /usr/local/Nuke15.1v5/libnuke-15.1.5.so -nx
version 15.1 v5
define_window_layout_xml {<?xml version="1.0" encoding="UTF-8"?>
<layout version="1.0"/>
}
Root {
 inputs 0
 name /show/comp.nk
 first_frame 1001
 last_frame 1010
ROOT}
Read {
 inputs 0
 label "a \\} brace \\{ and \\" and 'gc_system no'"
 name Read1
}
Group {
 name Omnimatte1
 addUserKnob {1 gc_system +INVISIBLE}
 gc_system omnimatte
}
 Write {
  name Write_plate
  disable {{!parent.gc_rendering}}
 }
end_group
Group {
 name Look
}
 Group {
  name DynVFX1
  gc_system dynvfx
 }
 end_group
end_group
Group {
 name Off
 gc_system dynvfx
 disable true
}
end_group
Write {
 file "\\[file dirname \\[value root.name]]/out dir/comp.%04d.exr"
 name Write1
}
Write {
 file /show/old/comp.%04d.exr
 name Write2
 disable true
}
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OCIO", "NUKE_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def script(tmp_path):
    def write(root="", text=SCRIPT):
        path = tmp_path / "comp.nk"
        path.write_text(text.replace("ROOT", root), encoding="utf-8")
        return read_script(path)

    return write


@pytest.fixture
def gencomp(tmp_path):
    """Return a folder of gencomp as the farm sees it."""
    program = tmp_path / "gencomp" / "nuke_plugin" / "gencomp_nuke" / "batch.py"
    program.parent.mkdir(parents=True)
    program.touch()
    return tmp_path / "gencomp"


def step(template, name):
    return next(one for one in template["steps"] if one["name"] == name)


def command(template, name):
    action = step(template, name)["script"]["actions"]["onRun"]
    return [action["command"], *action["args"]]


def parameters(template):
    return {one["name"]: one.get("default") for one in template["parameterDefinitions"]}


# --- the script ----------------------------------------------------------------------------------


def test_a_script_tells_its_frames_our_nodes_and_its_writes(script, tmp_path):
    found = script()
    assert found.frames == FrameRange(1001, 1010)
    assert found.ours == ("Omnimatte1", "Look.DynVFX1")
    assert found.writes == {"Write1": f"{tmp_path.as_posix()}/out dir/comp.%04d.exr"}
    assert found.ocio == ""


def test_its_own_config_counts_where_it_is_switched_on(script, tmp_path):
    path = ' customOCIOConfigPath "\\[file dirname \\[value root.name]]/aces.ocio"\n'
    assert script(path).ocio == ""
    assert script(f" OCIO_config custom\n{path}").ocio == f"{tmp_path.as_posix()}/aces.ocio"


def test_what_is_no_script_is_refused(tmp_path):
    (tmp_path / "notes.nk").write_text("Dear Nuke", encoding="utf-8")
    with pytest.raises(BadKnob, match=r"notes\.nk is no Nuke script"):
        read_script(tmp_path / "notes.nk")
    with pytest.raises(BadKnob, match="cannot be read"):
        read_script(tmp_path / "nowhere.nk")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"writes": "Write2"}, "has no Write 'Write2' that is not disabled. There are: Write1."),
        ({"chunk": 0}, "--chunk is 0"),
        ({"frames": "1010-1001"}, "runs backwards"),
    ],
)
def test_a_job_that_cannot_be_is_refused(script, given, sentence):
    with pytest.raises(BadKnob) as refused:
        farm.farm_job(script(), **given)
    assert sentence in str(refused.value)


def test_a_script_without_a_node_of_ours_or_without_a_write_is_refused(script, tmp_path):
    with pytest.raises(BadKnob, match="no node of gencomp's"):
        farm.farm_job(script(text=SCRIPT.replace("gc_system", "my_system")))
    with pytest.raises(BadKnob, match="has no Write that is not disabled"):
        farm.farm_job(script(text=SCRIPT.replace("Write {", "Blur {")))
    with pytest.raises(BadKnob, match="Nuke side is not in"):
        farm.farm_job(script(), gencomp=tmp_path)


# --- Open Job Description ------------------------------------------------------------------------


def test_results_are_a_step_of_a_gpu_host_and_frames_come_after_it(script, gencomp, tmp_path):
    made = farm.openjd_template(farm.farm_job(script(), gencomp=gencomp, gpus=2), tmp_path)
    infer, comp = step(made, "Infer"), step(made, "Comp")
    assert infer["hostRequirements"] == {"amounts": [{"name": "amount.worker.gpu", "min": 2}]}
    assert comp["dependencies"] == [{"dependsOn": "Infer"}]
    assert "hostRequirements" not in comp
    assert command(made, "Infer") == [
        "{{Param.Nuke}}",
        "-t",
        "{{Param.Gencomp}}/nuke_plugin/gencomp_nuke/batch.py",
        "{{Param.Script}}",
        "--save={{Param.Prepared}}",
        "--openjd",
    ]
    frame = ["-x", "-F", "{{Task.Param.Frame}}", "-X", "{{Param.Writes}}", "{{Param.Prepared}}"]
    assert command(made, "Comp") == ["{{Param.Nuke}}", *frame]
    notice = infer["script"]["actions"]["onRun"]["cancelation"]["mode"]
    assert notice == "NOTIFY_THEN_TERMINATE"


def test_paths_beneath_the_template_are_relative_and_all_are_in_the_values(
    script, gencomp, tmp_path
):
    job = farm.farm_job(script(" OCIO_config custom\n customOCIOConfigPath /c/aces.ocio\n"))
    made = parameters(farm.openjd_template(job, tmp_path))
    assert made["Script"] == "comp.nk"
    assert made["Prepared"] == "comp.farm.nk"
    assert made["Output1"] == "out dir"
    assert made["Frames"] == "1001-1010"
    assert (made["Gencomp"], made["Ocio"]) == (None, None)  # Elsewhere: they have to be given.
    values = farm.openjd_values(job)
    assert values["Ocio"] == "/c/aces.ocio"
    assert values["Script"] == str(tmp_path / "comp.nk")
    assert "Nuke" not in values


def test_the_artists_nuke_path_and_config_travel(script, gencomp, tmp_path, monkeypatch):
    monkeypatch.setenv("NUKE_PATH", "/studio/nuke")
    monkeypatch.setenv("OCIO", "ocio://default")
    job = farm.farm_job(script(), gencomp=gencomp)
    made = farm.openjd_template(job, tmp_path)
    variables = made["jobEnvironments"][0]["variables"]
    assert variables == {"NUKE_PATH": "{{Param.Gencomp}}:/studio/nuke", "OCIO": "ocio://default"}


def test_chunks_cover_the_frames_with_their_step(script, gencomp, tmp_path):
    job = farm.farm_job(script(), gencomp=gencomp, frames="1001-1010x2", chunk=2)
    made = farm.openjd_template(job, tmp_path)
    (frames,) = step(made, "Comp")["parameterSpace"]["taskParameterDefinitions"]
    assert frames["range"] == ["1001-1003x2", "1005-1007x2", "1009"]
    assert "Frames" not in parameters(made)
    single = farm.farm_job(script(), gencomp=gencomp, frames="1001-1010x2")
    assert parameters(farm.openjd_template(single, tmp_path))["Frames"] == "1001-1010:2"


def test_yaml_quotes_what_it_would_take_for_something_else():
    value = {"a": ["1001", "no", "plain/word", "a: b", 3, {"b": "é {x}", "c": ""}]}
    assert farm.yaml_text(value) == (
        'a:\n  - "1001"\n  - "no"\n  - plain/word\n  - "a: b"\n  - 3\n  - b: "é {x}"\n    c: ""\n'
    )


def test_the_template_is_valid_and_says_the_same_as_yaml_and_as_json(
    script, gencomp, tmp_path, capsys
):
    model = pytest.importorskip("openjd.model")
    script()
    words = ["farm", "openjd", str(tmp_path / "comp.nk"), "--gencomp", str(gencomp)]
    assert main(words) == 0
    assert main([*words, "-o", str(tmp_path / "comp.json")]) == 0
    said = capsys.readouterr().out.split()
    assert [place.rpartition("/")[2] for place in said] == [
        "comp.openjd.yaml",
        "comp.openjd.values.json",
        "comp.json",
        "comp.values.json",
    ]
    kinds = model.DocumentType
    yaml = model.document_string_to_object(
        document=(tmp_path / "comp.openjd.yaml").read_text("utf-8"), document_type=kinds.YAML
    )
    assert yaml == json.loads((tmp_path / "comp.json").read_text("utf-8"))
    assert model.decode_job_template(template=yaml).name == "comp.nk"


def test_a_template_of_another_kind_is_refused(script, gencomp, tmp_path, capsys):
    script()
    words = ["farm", "openjd", str(tmp_path / "comp.nk"), "-o", "job.xml"]
    assert main([*words, "--gencomp", str(gencomp)]) == 2
    assert "'job.xml' is neither YAML nor JSON" in capsys.readouterr().err


# --- OpenCue -------------------------------------------------------------------------------------


class Layer:
    """Stands for PyOutline's Shell: keeps what it is given."""

    def __init__(self, name, **given):
        self.name, self.given, self.after = name, given, []

    def depend_all(self, other):
        self.after.append(other.name)


class Outline:
    """Stands for PyOutline's Outline."""

    def __init__(self, name, **given):
        self.name, self.given, self.layers, self.environment = name, given, [], {}

    def set_env(self, name, value, pre):
        self.environment[name] = value if pre else None

    def set_user(self, user):
        self.given["user"] = user

    def add_layer(self, layer):
        self.layers.append(layer)


@pytest.fixture
def cue(monkeypatch):
    modules = {
        "opencue": types.ModuleType("opencue"),
        "outline": types.ModuleType("outline"),
        "outline.cuerun": types.ModuleType("outline.cuerun"),
        "outline.modules": types.ModuleType("outline.modules"),
        "outline.modules.shell": types.ModuleType("outline.modules.shell"),
    }
    modules["outline"].Outline = Outline
    modules["outline.cuerun"].OutlineLauncher = lambda outline: outline
    modules["outline.modules.shell"].Shell = Layer
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_opencue_gets_the_same_two_layers(cue, script, gencomp, tmp_path):
    job = farm.farm_job(script(), gencomp=gencomp, chunk=5)
    made = farm.opencue_launcher(job, show="show", shot="", user="ann")
    infer, comp = made.layers
    assert (made.name, made.given) == (
        "comp",
        {"frame_range": "1001-1010", "show": "show", "user": "ann"},
    )
    assert made.environment == {"NUKE_PATH": str(gencomp)}
    assert infer.given["command"][-1] == f"--save={tmp_path}/comp.farm.nk"
    assert (infer.given["range"], infer.given["gpus"]) == ("1001-1001", 1)
    assert comp.given["command"][:4] == ["nuke", "-x", "-F", "#FRAME_START#-#FRAME_END#"]
    assert (comp.given["range"], comp.given["chunk"], comp.after) == ("1001-1010", 5, ["Infer"])


def test_without_opencues_libraries_it_is_a_sentence(script, gencomp, monkeypatch):
    monkeypatch.setitem(sys.modules, "outline", None)
    with pytest.raises(ToolFailed, match="OpenCue's libraries are not here") as refused:
        farm.opencue_launcher(farm.farm_job(script(), gencomp=gencomp), show="", shot="", user="")
    assert "Install opencue-pycue and opencue-pyoutline" in str(refused.value)
