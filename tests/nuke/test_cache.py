# SPDX-License-Identifier: Apache-2.0
"""Where results lie: templates, unsaved scripts, paths of other systems, what the farm sees."""

from pathlib import Path, PurePosixPath

import pytest

from gencomp_nuke import caches, hooks, node, playing, prefs
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange


@pytest.fixture
def gizmo(app, tmp_path):
    """Return a node in the script comp.nk."""
    import nuke

    app.save(tmp_path / "comp.nk")
    made = nuke.createNode("DynVFX")
    made["gc_id"].setValue("ab12cd34")
    return made


def test_by_default_results_lie_beside_the_script(gizmo, tmp_path):
    found = node.cache_folder(gizmo, prefs.Prefs())
    assert found == tmp_path / "gencomp/comp/DynVFX1_ab12cd34"


def test_the_usual_text_is_that_of_every_gizmo(app):
    import nuke

    for name in ("Omnimatte", "OverPlusPlus", "GenComposite", "SplitThenMerge", "DynVFX"):
        assert nuke.createNode(name)["gc_cache"].toScript() == caches.USUAL


def test_a_template_of_the_studio_takes_its_place(gizmo, monkeypatch):
    monkeypatch.setenv("SHOW", "sc")
    settings = prefs.Prefs(cache_template="/mnt/cache/$SHOW/{script}/{node}_{id}")
    found = node.cache_folder(gizmo, settings)
    assert found == Path("/mnt/cache/sc/comp/DynVFX1_ab12cd34")


def test_a_knob_that_was_changed_wins_over_the_template(gizmo):
    gizmo["gc_cache"].setValue("/elsewhere/cache")
    settings = prefs.Prefs(cache_template="/mnt/cache/{id}")
    assert node.cache_folder(gizmo, settings) == Path("/elsewhere/cache")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("/mnt/{shot}", "cannot be understood"),
        ("/mnt/$NO_SUCH_VARIABLE_HERE", "a variable is not set"),
        ("mnt/{id}", "not a whole path"),
    ],
)
def test_a_template_that_cannot_be_followed_is_a_sentence(gizmo, template, sentence):
    with pytest.raises(BadKnob, match=sentence):
        node.cache_folder(gizmo, prefs.Prefs(cache_template=template))


# --- paths of other systems ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("P:/show/a.exr", "/mnt/p/show/a.exr"),
        ("p:\\show\\a.exr", "/mnt/p/show/a.exr"),
        ("//srv/p/a.exr", "/mnt/p/a.exr"),
        ("/mnt/p/a.exr", "/mnt/p/a.exr"),
        ("Q:/a.exr", "Q:/a.exr"),
    ],
)
def test_paths_of_another_system_become_those_of_this_one(path, found):
    settings = prefs.Prefs(path_map="P:/=/mnt/p/; //srv/p/=/mnt/p/")
    assert caches.mapped(path, settings) == found


@pytest.mark.parametrize(
    ("path", "here"),
    [
        (r"P:\show\a b\ä.exr", "/mnt/p/show/a b/ä.exr"),
        ("p:/show", "/mnt/p/show"),
        ("//SRV/p/show", "/mnt/p/show"),
        ("//srv/pub/show", "//srv/pub/show"),
        ("P:", "/mnt/p"),
        ("/mnt/q/P:/x", "/mnt/q/P:/x"),
    ],
)
def test_pairs_take_whole_folders_of_any_spelling(path, here):
    assert caches.mapped(path, prefs.Prefs(path_map=r"P:=/mnt/p; \\srv\p=/mnt/p")) == here


@pytest.mark.parametrize(
    ("pair", "path", "here"),
    [
        ("/Volumes/p/=/mnt/p/", "/Volumes/p/a.exr", "/mnt/p/a.exr"),
        ("/mnt/p/=/Volumes/p/", "/mnt/p/a b.exr", "/Volumes/p/a b.exr"),
        ("/mnt/p/=P:/", "/mnt/p/a.%04d.exr", "P:/a.%04d.exr"),
        ("/mnt/p/=//srv/p/", "/mnt/p/ä.exr", "//srv/p/ä.exr"),
        ("P:/=//srv/p/", "P:\\show\\a.exr", "//srv/p/show/a.exr"),
    ],
    ids=["mac to linux", "linux to mac", "linux to windows", "linux to share", "drive to share"],
)
def test_every_system_may_stand_on_either_side_of_a_pair(pair, path, here):
    assert caches.mapped(path, prefs.Prefs(path_map=pair)) == here


def test_drives_and_shares_that_the_farm_sees_mind_no_capitals():
    settings = prefs.Prefs(farm_roots=r"p:\show; //SRV/cache")
    assert caches.warnings(PurePosixPath("P:/show/sh010"), settings) == []
    assert caches.warnings(PurePosixPath("//srv/cache/x"), settings) == []
    assert len(caches.warnings(PurePosixPath("P:/shows"), settings)) == 1


def test_pairs_without_sense_are_named():
    with pytest.raises(BadKnob, match="has 'P:/', which is no pair"):
        caches.mapped("x", prefs.Prefs(path_map="P:/"))


def test_what_is_mapped_is_opened_by_every_node_of_this_nuke(app, home, monkeypatch):
    monkeypatch.setenv("GENCOMP_PATH_MAP", "P:/=/mnt/p/")
    hooks.install()
    assert caches.opened("P:/a.%04d.exr") == "/mnt/p/a.%04d.exr"


def test_a_studios_own_filter_is_asked_too(app):
    import nuke

    nuke.addFilenameFilter(lambda path: path.replace("SHOW", "/mnt/show"))
    assert caches.opened("SHOW/a.exr") == "/mnt/show/a.exr"


def test_a_cache_on_another_systems_path_is_mapped(gizmo):
    gizmo["gc_cache"].setValue("P:/cache/x")
    assert node.cache_folder(gizmo, prefs.Prefs(path_map="P:/=/mnt/p/")) == Path("/mnt/p/cache/x")


def test_the_settings_of_a_studio_come_from_the_environment(home, monkeypatch):
    monkeypatch.setenv("GENCOMP_INPUTS_KEEP_GB", "5")
    monkeypatch.setenv("GENCOMP_FARM_ROOTS", "/mnt/prod")
    assert (prefs.load().inputs_keep_gb, prefs.load().farm_roots) == (5, "/mnt/prod")
    monkeypatch.setenv("GENCOMP_INPUTS_KEEP_GB", "many")
    with pytest.raises(BadKnob, match="a whole number of gigabytes, not 'many'"):
        prefs.load()


# --- the farm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roots", "folder", "count"),
    [
        ("", "/home/me/x", 0),
        ("/mnt/prod; /mnt/cache/", "/mnt/cache/x", 0),
        ("/mnt/prod", "/home/me/x", 1),
        ("/mnt/prod", "/mnt/production/x", 1),
    ],
)
def test_a_folder_that_the_farm_does_not_see_is_told(roots, folder, count):
    said = caches.warnings(Path(folder), prefs.Prefs(farm_roots=roots))
    assert len(said) == count
    assert all(sentence.startswith("The farm does not see") for sentence in said)


# --- the first save ------------------------------------------------------------------------------


@pytest.fixture
def unsaved(app, home):
    """Return a node of a script without a name that plays a result of its own."""
    import nuke

    gizmo = nuke.createNode("DynVFX")
    folder = node.cache_folder(gizmo, prefs.load()) / "v001"
    (folder / "result").mkdir(parents=True)
    (folder / "result/result.1001.exr").write_bytes(b"x")
    manifest = '{"layers": {"result": {"frames": [1001]}}, "node": {"slots": {}, "order": []}}'
    (folder / "manifest.json").write_text(manifest, encoding="utf-8")
    gizmo["gc_folder"].setValue(folder.as_posix())
    return gizmo


def test_an_unsaved_scripts_results_lie_in_the_users_folder(unsaved, home):
    assert playing.result_folder(unsaved) == home / f"unsaved/{unsaved['gc_id'].value()}/v001"


def test_the_first_save_offers_to_move_them_beside_the_script(unsaved, app, tmp_path, monkeypatch):
    import nuke

    asked = []
    monkeypatch.setattr(nuke, "ask", lambda text: asked.append(text) is None)
    old = playing.result_folder(unsaved)
    app.save(tmp_path / "shot.nk")
    assert "DynVFX1 plays" in asked[0]
    beside = tmp_path / f"gencomp/shot/DynVFX1_{unsaved['gc_id'].value()}/v001"
    assert playing.result_folder(unsaved) == beside
    assert (beside / "result/result.1001.exr").read_bytes() == b"x"
    assert not old.exists()
    assert unsaved["gc_folder"].toScript().startswith("[file dirname [value root.name]]")


def test_no_leaves_everything_where_it_is(unsaved, app, tmp_path, monkeypatch):
    import nuke

    monkeypatch.setattr(nuke, "ask", lambda text: False)
    old = playing.result_folder(unsaved)
    app.save(tmp_path / "shot.nk")
    assert playing.result_folder(unsaved) == old
    assert old.is_dir()


def test_a_version_that_is_there_already_keeps_its_number(unsaved, app, tmp_path, monkeypatch):
    import nuke

    monkeypatch.setattr(nuke, "ask", lambda text: True)
    taken = tmp_path / f"gencomp/shot/DynVFX1_{unsaved['gc_id'].value()}/v001"
    taken.mkdir(parents=True)
    app.save(tmp_path / "shot.nk")
    assert playing.result_folder(unsaved) == taken.with_name("v002")


def test_whatever_goes_wrong_the_script_is_saved(unsaved, app, tmp_path, monkeypatch):
    import nuke

    def broken(text):
        raise RuntimeError("no display")

    old = playing.result_folder(unsaved)
    monkeypatch.setattr(nuke, "ask", broken)
    app.save(tmp_path / "shot.nk")
    assert (tmp_path / "shot.nk").is_file()
    assert playing.result_folder(unsaved) == old


# --- handles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        ((1010, 1020), (1001, 1100), (1005, 1025)),
        ((1002, 1020), (1001, 1022), (1001, 1022)),
        ((1010, 1020), None, (1005, 1025)),
        ((990, 1020), (1001, 1100), (990, 1025)),
    ],
)
def test_handles_go_as_far_as_the_plate_does(asked, there, found):
    plate = None if there is None else FrameRange(*there)
    assert node.with_handles(FrameRange(*asked), 5, plate) == FrameRange(*found)


def test_handles_are_for_a_part_of_the_plate(app, comp):
    gizmo = comp(app)
    gizmo["gc_handles"].setValue(1)
    assert node.frame_range(gizmo) == FrameRange(1001, 1004)
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1002)
    gizmo["gc_last"].setValue(1003)
    assert node.frame_range(gizmo) == FrameRange(1001, 1004)


def test_a_folder_with_spaces_and_umlauts_is_played_again(app, tmp_path):
    import nuke

    script, folder = tmp_path / "Büro 12" / "shot ü.nk", tmp_path / "Büro 12" / "cache ß" / "v001"
    folder.mkdir(parents=True)
    app.save(script)
    made = nuke.createNode("DynVFX")
    made["gc_folder"].setValue(playing.spell_folder(folder))
    app.save()
    nuke.scriptOpen(str(script))
    again = nuke.toNode("DynVFX1")
    assert playing.result_folder(again) == folder
    assert node.cache_folder(again, prefs.Prefs()).parent == script.parent / "gencomp/shot ü"
    assert again["gc_folder"].toScript().endswith("/cache ß/v001")


def test_a_node_within_a_live_group_has_a_folder_of_its_own(gizmo, tmp_path):
    import nuke

    within = nuke.createNode("LiveGroup", "name shared")
    with within:
        inner = nuke.createNode("DynVFX")
        inner["gc_id"].setValue("ab12cd34")
    assert node.identify(inner) != "ab12cd34"
    assert node.identify(gizmo) == "ab12cd34"
    folders = {node.cache_folder(one, prefs.Prefs()) for one in (gizmo, inner)}
    assert len(folders) == 2
