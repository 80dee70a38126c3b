# SPDX-License-Identifier: Apache-2.0
"""What a request is refused for, from its header alone."""

from dataclasses import dataclass, replace

import pytest

from gencomp_protocol.errors import (
    BadKnob,
    FormatMismatch,
    MissingFrame,
    MissingInput,
    RangeMismatch,
)
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.layers import LayerSpec
from gencomp_protocol.request import STILL, STILLS, InputHeader, Request
from gencomp_server.contract import (
    CommonParams,
    Input,
    OneOf,
    Plan,
    System,
    check_request,
    find_system,
    knob,
    parse_params,
    schema,
)


@dataclass(frozen=True)
class Params(CommonParams):
    gain: float = knob(1.0, lo=0.0, hi=4.0, doc="Gain, 0 to 4.")
    steps: int = knob(8, lo=1, hi=50, doc="Steps.")
    invert: bool = knob(False, doc="Invert.")
    mode: str = knob("near", choices=("near", "far"), doc="Mode.")


SYSTEM = System(
    name="toy",
    title="Toy",
    doc="A toy.",
    inputs=(
        OneOf(((Input("plate", "rgb", "p"),), (Input("fg", "rgba", "f"), Input("bg", "rgb", "b")))),
        Input("matte.*", "matte", "One matte.", most=2),
        Input("still", "rgb", "A still.", optional=True, covers=(STILL, STILLS)),
    ),
    params=Params,
    layers=lambda request: (LayerSpec("result"),),
    plan=lambda request, machine: Plan(),
    run=lambda shot, params, ctx: iter(()),
)
HD = Format(1920, 1080)
GOOD = Request(
    "toy",
    FrameRange(1001, 1003),
    (
        InputHeader("plate", (1001, 1002, 1003), format=HD),
        InputHeader("matte.a", (1001, 1002, 1003), format=HD),
    ),
)


def with_input(*extra: InputHeader) -> Request:
    return replace(GOOD, inputs=GOOD.inputs + extra)


def test_when_everything_fits_then_the_parsed_params_come_back():
    params = check_request(SYSTEM, replace(GOOD, knobs={"gain": "0.5", "invert": "on"}))
    assert params == Params(gain=0.5, invert=True)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("gian", 1.0, "Did you mean 'gain'"),
        ("gain", 5.0, "allowed are 0 to 4. Set it to 4 or less"),
        ("gain", -1.0, "Set it to 0 or more"),
        ("gain", float("nan"), "takes a number"),
        ("gain", "bright", "takes a number"),
        ("steps", 2.5, "takes a whole number"),
        ("steps", True, "takes a whole number"),
        ("invert", "perhaps", "takes on or off"),
        ("mode", "middle", "near, far"),
        ("mode", "Far", "Did you mean 'far'"),
        ("mode", 3, "takes text"),
    ],
)
def test_when_a_knob_is_wrong_then_the_sentence_names_it(name, value, words):
    with pytest.raises(BadKnob) as caught:
        parse_params(Params, {name: value})
    assert words in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.fault("F09")
@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (replace(GOOD, inputs=GOOD.inputs[1:]), MissingInput, "plate or fg + bg"),
        (replace(GOOD, inputs=GOOD.inputs[:1]), MissingInput, "matte.NAME"),
        (with_input(InputHeader("depth", (1001,))), MissingInput, "no input 'depth'"),
        (
            with_input(*(InputHeader(f"matte.{n}", (1001, 1002, 1003)) for n in "bc")),
            MissingInput,
            "at most 2",
        ),
        (with_input(InputHeader("matte.b", (1001, 1003))), MissingFrame, "no frame 1002"),
        (with_input(InputHeader("matte.b", (1, 2))), RangeMismatch, "1-2"),
        (with_input(InputHeader("matte.b", ())), MissingFrame, "no pictures"),
        (with_input(InputHeader("matte.b", (1,), cover=STILL)), MissingFrame, "cannot be a still"),
        (with_input(InputHeader("still", (1, 1001), cover=STILLS)), RangeMismatch, "at 1,"),
        (
            with_input(InputHeader("matte.b", (1001, 1002, 1003), format=Format(1280, 720))),
            FormatMismatch,
            "'matte.b' is 1280x720 at frame 1001, but 'plate' is 1920x1080",
        ),
    ],
)
def test_when_inputs_do_not_fit_then_the_sentence_says_which(request_, error, words):
    with pytest.raises(error) as caught:
        check_request(SYSTEM, request_)
    assert words in str(caught.value)


def test_when_the_second_alternative_is_connected_then_the_request_passes():
    pair = (InputHeader("fg", (1001, 1002, 1003)), InputHeader("bg", (1001, 1002, 1003)))
    check_request(SYSTEM, replace(GOOD, inputs=(*pair, GOOD.inputs[1])))


def test_when_a_still_covers_the_range_then_its_own_number_does_not_matter():
    check_request(SYSTEM, with_input(InputHeader("still", (7,), cover=STILL)))


def test_when_a_system_is_unknown_then_the_nearest_is_named():
    with pytest.raises(BadKnob, match="Did you mean 'toy'"):
        find_system((SYSTEM,), "toys")


def test_when_a_schema_is_asked_then_it_is_plain_data_in_panel_order():
    plain = schema(SYSTEM)
    assert [k["name"] for k in plain["knobs"]] == ["seed", "gain", "steps", "invert", "mode"]
    assert plain["knobs"][1]["hi"] == 4.0
    assert plain["inputs"][1]["name"] == "matte.*"
