# SPDX-License-Identifier: Apache-2.0
"""How much a delivered file says: of the job, of the plate, and of nobody by default."""

from hashlib import blake2b

import pytest

from gencomp_server.provenance import (
    FULL,
    HASHES,
    METADATA,
    MINIMAL,
    carried,
    text_hash,
    texts_of,
    told,
)

PROMPT = "a red car for Ann, /mnt/show/x"
FACTS = {
    "gencomp:system": "overplusplus",
    "gencomp:version": "0.1.0",
    "gencomp:seed": 5,
    "gencomp:licence": "research: X",
}
KNOBS = {"prompt": PROMPT, "gain": 2.0}
PICTURES = {"plate": {1001: "a" * 64, 1002: "b" * 64}}
OF_THE_PLATE = {
    "smpte:TimeCode": (1, 0),
    "framesPerSecond": (24, 1),
    "chromaticities": (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329),
    "isoSpeed": 800.0,
    "ImageDescription": "graded by Ann",
    "Copyright": "Ann",
    "exr/operatorName": "Ann",
    "Artist": "Ann",
    "nuke/user": "ann",
    "login": "ann",
}


def of_a_job(level, **more):
    given = {"facts": FACTS, "knobs": KNOBS, "pictures": PICTURES, "client": "nuke 15", **more}
    return told(**given, level=level)


def spelt(found):
    return " ".join(f"{name}={value}" for name, value in found.items())


def test_full_says_all_knobs_and_which_program_asked():
    found = of_a_job(FULL)
    assert found["gencomp:knobs"] == '{"gain": 2.0, "prompt": "' + PROMPT + '"}'
    assert found["gencomp:client"] == "nuke 15"


@pytest.mark.parametrize("level", [HASHES, MINIMAL])
def test_below_full_no_word_of_the_prompt_and_no_path_stands_in_a_file(level):
    text = spelt(of_a_job(level))
    assert not any(word in text for word in ("red", "car", "Ann", "/mnt", "nuke 15"))


def test_hashes_tie_a_file_to_its_prompt_and_its_inputs():
    found = of_a_job(HASHES)
    assert found["gencomp:prompt_hash"] == blake2b(PROMPT.encode(), digest_size=32).hexdigest()
    other = of_a_job(HASHES, pictures={"plate": {1001: "a" * 64, 1002: "c" * 64}})
    assert found["gencomp:inputs_hash"] != other["gencomp:inputs_hash"]
    assert found["gencomp:seed"] == 5


def test_without_a_prompt_there_is_no_hash_of_one():
    assert "gencomp:prompt_hash" not in of_a_job(HASHES, knobs={"gain": 1.0, "prompt": ""})


def test_a_knob_that_only_turns_the_delivery_changes_no_attribute_by_default():
    assert of_a_job(HASHES) == of_a_job(HASHES, knobs={**KNOBS, "gain": 7.0})


def test_minimal_says_that_it_was_generated_by_what_and_under_which_licence():
    assert of_a_job(MINIMAL) == {
        "gencomp:system": "overplusplus",
        "gencomp:version": "0.1.0",
        "gencomp:licence": "research: X",
    }


def test_of_the_plate_full_keeps_everything():
    assert carried(OF_THE_PLATE, FULL) == OF_THE_PLATE


def test_of_the_plate_hashes_keep_what_names_nobody():
    found = carried(OF_THE_PLATE, HASHES)
    assert list(found) == ["smpte:TimeCode", "framesPerSecond", "chromaticities", "isoSpeed"]


def test_of_the_plate_minimal_keeps_what_a_picture_is_read_by():
    found = carried(OF_THE_PLATE, MINIMAL)
    assert list(found) == ["smpte:TimeCode", "framesPerSecond", "chromaticities"]


def test_what_an_artist_wrote_is_told_from_what_was_chosen():
    knobs = {"prompt": "smoke", "backbone": "casper", "gain": 2.0, "notes": "for Ann, please"}
    assert texts_of({**knobs, "trajectory": "300,540; 1500,600"}) == ("smoke", "for Ann, please")


@pytest.mark.parametrize("level", METADATA)
def test_what_a_cryptomatte_and_a_view_are_read_by_always_goes_along(level):
    needed = {
        "cryptomatte/1f2e3d4/manifest": "{}",
        "cryptomatte/1f2e3d4/name": "user",
        "view": "left",
    }
    assert carried(needed, level) == needed


def test_a_prompt_that_is_no_text_of_utf_8_has_a_hash_as_well():
    assert len(text_hash("\ud800")) == 64
    assert METADATA == ("full", "hashes", "minimal")
