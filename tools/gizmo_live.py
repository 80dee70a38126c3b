# SPDX-License-Identifier: Apache-2.0
"""What is computed inside a gizmo from layers on disk: adjustments, the live result, the views.

As the knobs stand at first every node here is off, so that what was read goes through unchanged.
Variables: ``$P_KEY`` is a layer as it is played, ``$Recomposed`` and ``$Live`` what is made of it.
"""

from gizmo_lines import node_lines
from gizmo_source import Panel, has_keyframes, slots_of, suffix

from gencomp_protocol.layers import BACKGROUND, EFFECT, ELEMENT, INTERACTION, RESIDUAL, RESULT

_X = -1000
_RGBA = ("channels rgba",)
_FIRST, _LAST = "{{parent.gc_result_first}}", "{{parent.gc_result_last}}"
_OUTSIDE = "{{parent.gc_outside*3}}"  # Of a Read's hold, loop, bounce and black the first or last.
RANGE_WORDS = (
    f"before {_OUTSIDE}",
    f"after {_OUTSIDE}",
    f"first {_FIRST}",
    f"last {_LAST}",
    f"origfirst {_FIRST}",
    f"origlast {_LAST}",
    "origset true",
)
"""Which frames a Read of a result has, and what it gives beyond them."""


def adjusted_lines(key: str, y: int) -> list[str]:
    """Return what one layer goes through: edge, blur, offset, and at last density and tint.

    A density beyond 1 brings an alpha nearer to 1 and never past it; light without alpha grows as
    it is told.
    """
    blur, offset = f"gc_blur_{key}", f"gc_offset_{key}"
    density, tint = f"parent.gc_density_{key}", f"parent.gc_tint_{key}"
    off = f"{density}==1&&{tint}.r==1&&{tint}.g==1&&{tint}.b==1"
    translate = f"translate {{{{parent.{offset}.x}} {{parent.{offset}.y}}}}"
    factor = '"dens<=1||a<=0 ? dens : (1-pow(max(1-a,0),dens))/a"'
    nodes = (
        ("Blur", "Blur", [*_RGBA, f"size {{{{parent.{blur}}}}}"], f"parent.{blur}==0"),
        ("Transform", "Offset", [translate], f"parent.{offset}.x==0&&parent.{offset}.y==0"),
        (
            "Expression",
            "Adjust",
            [
                "temp_name0 dens",
                f"temp_expr0 {density}",
                "temp_name1 k",
                f"temp_expr1 {factor}",
                *(f"expr{i} {c}*k*{tint}.{c}" for i, c in enumerate("rgb")),
                "expr3 a*k",
            ],
            off,
        ),
    )
    lines = _edge_lines(key, y)
    for place, (cls, name, words, is_off) in enumerate(nodes, 1):
        words = [*words, f"disable {{{{{is_off}}}}}"]
        lines += node_lines(cls, _X, y + 20 * place, f"{name}_{key}", *words)
    return lines


def _edge_lines(key: str, y: int) -> list[str]:
    """Return what grows a layer outwards, or takes its rim away, and leaves its inside.

    A layer covers as much as the greatest of its four channels, at most 1, so that light without
    alpha counts too. That is grown or shrunk to ``w``. Where it shrank, all four are weakened in
    the same proportion; where it grew, the colour around, weighed with ``w``, fills what is free.
    """
    size = f"parent.gc_edge_{key}"
    most = "max(max(r,g),max(b,a))"
    lines = [f"set Plain_{key} [stack 0]"]
    words = [f'expr{i} "clamp({most})"' for i in range(4)]
    lines += node_lines("Expression", _X - 300, y, f"Cover_{key}", *words)
    words = [*_RGBA, f"size {{{{{size}}}}}"]
    lines += node_lines("Dilate", _X - 300, y + 20, f"Covered_{key}", *words)
    lines.append(f"push $Plain_{key}")
    words = [*_RGBA, f"size {{{{2*{size}}}}}", f"disable {{{{{size}<=0}}}}"]
    lines += node_lines("Blur", _X - 200, y, f"Around_{key}", *words)
    words = ["temp_name0 k", f'temp_expr0 "{most}"']
    words += [f'expr{i} "{size}<0 ? 1 : (k>0 ? {c}/k : 0)"' for i, c in enumerate("rgba")]
    lines += node_lines("Expression", _X - 200, y + 20, f"Colour_{key}", *words)
    words = ("inputs 2", "operation multiply")
    lines += node_lines("Merge2", _X - 200, y + 40, f"Weighed_{key}", *words)
    lines.append(f"push $Plain_{key}")
    words = [
        "inputs 2",
        "temp_name0 w",
        'temp_expr0 "max(max(Ar,Ag),max(Ab,Aa))"',
        "temp_name1 m",
        'temp_expr1 "clamp(max(max(Br,Bg),max(Bb,Ba)))"',
        *(
            f'expr{i} "w>m ? B{c}+A{c}*(w-m)/w : (m>0 ? B{c}*w/m : B{c})"'
            for i, c in enumerate("rgba")
        ),
        f"disable {{{{{size}==0}}}}",
    ]
    return lines + node_lines("MergeExpression", _X, y, f"Edge_{key}", *words)


def _is_as_it_was(key: str) -> str:
    """Return the expression that tells whether a layer's adjustments are all off."""
    return "&&".join(f"{node}_{key}.disable" for node in ("Edge", "Blur", "Offset", "Adjust"))


def effect_lines(panel: Panel, lead: str, y: int) -> list[str]:
    """Return how the effect is played: as read, or put together of adjusted elements; then split.

    ``$R_effect`` is the Read.
    """
    lines = _stacked_lines(panel, y) if any(map(_is_element, panel.adjusted)) else []
    lines += adjusted_lines(EFFECT, y)
    return lines + _split_lines(lead, y + 100)


def _is_element(entry: "tuple[str, object]") -> bool:
    return entry[0].startswith(ELEMENT)


def _stacked_lines(panel: Panel, y: int) -> list[str]:
    """Return the elements on what they do, from back to front, where one of them is adjusted."""
    zero = [f"expr{index} 0" for index in range(4)]
    lines = node_lines("Expression", _X - 400, y, "Nothing", *zero)
    for slot in slots_of(panel):
        for stem in (INTERACTION, ELEMENT):
            key = f"{stem}_{slot}"
            if key not in dict(panel.adjusted) and stem == ELEMENT:
                continue
            lines += ["set Beneath [stack 0]", f"push $P_{key}", "push $Beneath"]
            off = f"disable {{{{!parent.gc_has_{key}}}}}"
            lines += node_lines("Merge2", _X - 400, y + 40 * slot, f"Stack_{key}", "inputs 2", off)
    elements = [key for key, _ in filter(_is_element, panel.adjusted)]
    same = "&&".join(_is_as_it_was(key) for key in elements)
    lines.append(f"push $R_{EFFECT}")
    which = f"which {{{{!({same})}}}}"
    return lines + node_lines("Switch", _X - 200, y, "Stacked", "inputs 2", which)


def _split_lines(lead: str, y: int) -> list[str]:
    """Return the effect with its light and its shadow weighed: what is more or less than the plate.

    With ``D = F - A P`` the result over a plate ``P`` is ``P + D``: a negative ``D`` is shadow.
    """
    lines = ["set Whole [stack 0]", "push $Whole", f"push ${lead}"]
    lines += node_lines("Merge2", _X, y, "Behind", "inputs 2", "operation mask")
    lines += ["set Behind [stack 0]", "push $Whole", "push $Behind"]
    lines += node_lines("Merge2", _X, y + 20, "Change", "inputs 2", "operation minus")
    weighed = [
        f'expr{index} "{c}>0 ? {c}*parent.gc_light : {c}*parent.gc_shadow"'
        for index, c in enumerate("rgb")
    ]
    lines += node_lines("Expression", _X, y + 40, "Weighed", *weighed)
    lines += ["push $Behind"]
    lines += node_lines("Merge2", _X, y + 60, "Changed", "inputs 2", "operation plus")
    lines += ["set Changed [stack 0]", "push $Whole", "push $Changed"]
    copy = ("inputs 2", "from0 rgba.alpha", "to0 rgba.alpha")
    lines += node_lines("Copy", _X, y + 80, "Its_alpha", *copy)
    lines += ["push $Whole"]
    which = "which {{parent.gc_shadow!=1||parent.gc_light!=1}}"
    return lines + node_lines("Switch", _X, y + 100, "Split", "inputs 2", which)


def live_lines(lead: str, y: int) -> list[str]:
    """Return the effect over the plate as it is now; all else is the plate's."""
    lines = [f"push $P_{EFFECT}", f"push ${lead}"]
    lines += node_lines("Merge2", -700, y, "Live", "inputs 2", "output rgb")
    return [*lines, "set Live [stack 0]"]


def result_lines(lead: str, y: int) -> list[str]:
    """Return the switch of the result: the plate, the picture as delivered, or the live one."""
    live = f"parent.gc_live&&parent.gc_has_{EFFECT}"
    which = f"which {{{{parent.gc_has_{RESULT}?({live}?2:1):0}}}}"
    lines = ["push $Live", f"push $P_{RESULT}", f"push ${lead}"]
    return lines + node_lines("Switch", -220, y, f"Layer_{RESULT}", "inputs 3", which)


def recomposed_lines(panel: Panel, y: int) -> list[str]:
    """Return the overs of all objects on the background, the first pipe's in front."""
    beneath, lines = f"Layer_{BACKGROUND}", []
    for slot in reversed(slots_of(panel)):
        lines += [f"push $Layer_{slot}", f"push ${beneath}"]
        words = ("inputs 2", f"disable {{{{!parent.gc_has{suffix(str(slot))}}}}}")
        lines += node_lines("Merge2", -700, y - 60 * slot, f"Over_{slot}", *words)
        lines += [f"set Over_{slot} [stack 0]"]
        beneath = f"Over_{slot}"
    lines += [f"push $Layer_{RESIDUAL}", f"push ${beneath}"]
    words = ("inputs 2", "operation plus", f"disable {{{{!parent.gc_has_{RESIDUAL}}}}}")
    lines += node_lines("Merge2", -700, y, f"Add_{RESIDUAL}", *words)
    return [*lines, "set Recomposed [stack 0]"]


# --- views ---------------------------------------------------------------------------------------


def view_lines(panel: Panel, lead: str, y: int) -> list[str]:
    """Return what is drawn over the picture, ``$Stream``; that itself where nothing is."""
    lines = ["set Stream [stack 0]", *_compare_lines(y), *_against_plate_lines(lead, y)]
    views = ["Compared", "From_plate", "Overlaid"]
    if has_keyframes(panel):
        lines += _trimask_lines(y + 200)
        views = ["Trimask", *views]
    for index, view in enumerate(views):
        lines += [f"push ${view}", "push $Stream"]
        parts = enumerate(("red", "green", "blue"))
        copy = [word for i, c in parts for word in (f"from{i} rgba.{c}", f"to{i} rgba.{c}")]
        lines += node_lines("Copy", 200 * (index + 1), y + 300, f"View_{view}", "inputs 2", *copy)
        lines.append(f"set View_{view} [stack 0]")
    lines += [f"push $View_{view}" for view in reversed(views)] + ["push $Stream"]
    which = (f"inputs {len(views) + 1}", "which {{parent.gc_view}}")
    return lines + node_lines("Switch", 0, y + 360, "Viewed", *which)


def _compare_lines(y: int) -> list[str]:
    """Return a wipe between what is played and another result, and how far they are apart."""
    layer = "\\[value parent.gc_output]"
    lines = node_lines(
        "Read",
        400,
        y,
        "Read_compared",
        "inputs 0",
        f'file "\\[value parent.gc_compare_folder]/{layer}/{layer}.%04d.exr"',
        *RANGE_WORDS,
        "on_error black",
        "raw true",
        "postage_stamp false",
    )
    lines += ["set Other [stack 0]", "push $Stream"]
    side = ("expr3 x<parent.gc_wipe*width",)
    lines += node_lines("Expression", 500, y + 60, "Left_side", *side)
    lines += ["push $Stream", "push $Other"]
    wipe = ("inputs 3", "channels rgba", "maskChannel rgba.alpha")
    lines += node_lines("Keymix", 400, y + 100, "Wiped", *wipe)
    lines += ["set Wiped [stack 0]", "push $Stream", "push $Other"]
    lines += node_lines("Merge2", 600, y + 60, "Apart", "inputs 2", "operation difference")
    gain = ("channels rgb", "value {{parent.gc_gain}}")
    lines += node_lines("Multiply", 600, y + 100, "Apart_gained", *gain)
    lines += ["push $Wiped"]
    which = ("inputs 2", "which {{parent.gc_compare_mode}}")
    return [
        *lines,
        *node_lines("Switch", 500, y + 160, "Compared", *which),
        "set Compared [stack 0]",
    ]


def _against_plate_lines(lead: str, y: int) -> list[str]:
    """Return how far the picture is from the plate, and the plate with its alpha in red."""
    lines = ["push $Stream", f"push ${lead}"]
    lines += node_lines("Merge2", 900, y + 60, "Off_plate", "inputs 2", "operation difference")
    gain = ("channels rgb", "value {{parent.gc_gain}}")
    lines += [
        *node_lines("Multiply", 900, y + 100, "From_plate", *gain),
        "set From_plate [stack 0]",
    ]
    lines += ["push $Stream", f"push ${lead}"]
    copy = ("inputs 2", "from0 rgba.alpha", "to0 rgba.alpha")
    lines += node_lines("Copy", 1000, y + 60, "Shown_alpha", *copy)
    red = ('expr0 "r*(1-0.5*a)+0.5*a"', 'expr1 "g*(1-0.5*a)"', 'expr2 "b*(1-0.5*a)"')
    return [
        *lines,
        *node_lines("Expression", 1000, y + 100, "Overlaid", *red),
        "set Overlaid [stack 0]",
    ]


def _trimask_lines(y: int) -> list[str]:
    """Return the three classes over the plate: red is generated, blue unknown, the rest kept."""
    counts = "parent.mask_frames==0||(parent.mask_frames==1&&parent.gc_is_key)"
    red, blue = "(1-unknown)*wanted", "unknown"
    mixed = [
        f'expr0 "r*(1-0.5*max({red},{blue}))+0.5*{red}"',
        f'expr1 "g*(1-0.5*max({red},{blue}))"',
        f'expr2 "b*(1-0.5*max({red},{blue}))+0.5*{blue}"',
    ]
    lines = ["push $EffectUnknown_channel", "push $EffectMask_channel", "push $Stream"]
    copy = ("inputs 2", "from0 rgba.alpha", "to0 rgba.alpha", "disable {{!parent.gc_masked}}")
    lines += node_lines("Copy", 700, y, "With_mask", *copy)
    copy = ("inputs 2", "from0 rgba.alpha", "to0 mask.a", "disable {{!parent.gc_unknown_masked}}")
    lines += node_lines("Copy", 700, y + 20, "With_unknown", *copy)
    classes = (
        "temp_name0 counts",
        f'temp_expr0 "parent.gc_masked&&({counts})"',
        "temp_name1 unknown",
        'temp_expr1 "!counts||(parent.gc_unknown_masked&&mask.a>=0.5)"',
        "temp_name2 wanted",
        'temp_expr2 "a>=parent.mask_threshold"',
    )
    lines += node_lines("Expression", 700, y + 40, "Trimask", *classes, *mixed)
    return [*lines, "set Trimask [stack 0]"]
