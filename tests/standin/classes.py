# SPDX-License-Identifier: Apache-2.0
"""The node classes that the stand-in knows: their knobs, kinds, defaults and inputs.

Only knob names seen in public scripts of that class. A class that is not here can be loaded and
saved, but not computed, and its knobs are not checked.
"""

# Kinds: s text, e text with [tcl], f file, i int, d number, b switch, m menu, c channel,
# l channel layer, p button, x anything.
_COMMON = (
    "name:s: xpos:i:0 ypos:i:0 label:e: note_font:s: note_font_size:d:11 note_font_color:i:0 "
    "tile_color:i:0 gl_color:i:0 selected:b:false hide_input:b:false cached:b:false "
    "disable:b:false dope_sheet:b:false bookmark:b:true postage_stamp:b:false "
    "postage_stamp_frame:i:1 lifetimeStart:i:0 lifetimeEnd:i:0 useLifetime:b:false help:e: "
    "knobChanged:s: onCreate:s: onDestroy:s: updateUI:s: autolabel:s: icon:s: indicators:i:0 "
    "rootNodeUpdated:s: panel:s: process_mask:x: cacheLocal:x: Mov:x: addUserKnob:x:"
)
_FROM_TO = " ".join(f"from{i}:c:none to{i}:c:none" for i in range(8))
_TABLE = {
    "Group": ("1", ""),
    "Root": (
        "0",
        "first_frame:i:1 last_frame:i:100 frame:d:1 fps:d:24 proxy:b:false format:s: "
        "proxy_format:s: proxy_type:x: inputs:x: colorManagement:x:Nuke workingSpaceLUT:s:linear "
        "monitorLut:x: int8Lut:x: int16Lut:x: logLut:x: floatLut:x: OCIO_config:x: "
        "customOCIOConfigPath:f: defaultViewerLUT:x: views:x: project_directory:f: "
        "lock_range:b:false frame_range:x: onScriptLoad:s: onScriptSave:s: onScriptClose:s: "
        "luts:x: render_mode:x: free_type:x:",
    ),
    "Input": ("0", "number:i:0"),
    "Output": ("1", ""),
    "Dot": ("1", ""),
    "NoOp": ("1", ""),
    "Switch": ("2", "which:d:0"),
    "Copy": ("2", _FROM_TO + " channels:l:none bbox:x:union mix:d:1 metainput:x:"),
    "Merge2": (
        "2",
        "operation:m:over|plus|under|stencil|mask|from|minus|difference|multiply|screen|copy "
        "bbox:x:union Achannels:l:rgba Bchannels:l:rgba output:l:rgba also_merge:l:none mix:d:1 "
        "maskChannelInput:c:none maskChannelMask:c:none invert_mask:b:false screen_alpha:b:false",
    ),
    "Read": (
        "0",
        "file:f: file_type:s: format:s: proxy:f: proxy_format:s: first:i:1 last:i:1 "
        "before:m:hold|loop|bounce|black after:m:hold|loop|bounce|black "
        "frame_mode:m:expression|start~at|offset frame:s: origfirst:i:1 origlast:i:1 "
        "origset:b:false on_error:m:error|black|checkerboard|nearest~frame raw:b:false "
        "premultiplied:b:false auto_alpha:b:false colorspace:s:default reload:p: version:i:0 "
        "localizationPolicy:x: time:x: noprefix:b:false offset_negative_display_window:b:true",
    ),
    "Write": (
        "1",
        "file:f: proxy:f: file_type:s: channels:l:rgb colorspace:s:default raw:b:false "
        "premultiplied:b:false datatype:m:16~bit~half|32~bit~float "
        "compression:s:Zip~(1~scanline) autocrop:b:false metadata:x: "
        "create_directories:b:false checkHashOnRead:b:true use_limit:b:false first:i:1 last:i:1 "
        "frame_mode:x: frame:s: render_order:d:1 version:i:0 views:x: interleave:x: reading:x: "
        "ocioColorspace:x: display:x: view:x: first_part:x: write_ACES_compliant_EXR:x: "
        "beforeRender:s: afterRender:s: beforeFrameRender:s: afterFrameRender:s: Render:p:",
    ),
    "Constant": (
        "0",
        "color:x:0 channels:l:rgb format:s: first:i:1 last:i:1",
    ),
    "Multiply": ("1", "channels:l:rgb value:d:1 maskChannelInput:c:none mix:d:1"),
    "Add": ("1", "channels:l:rgb value:d:0 maskChannelInput:c:none mix:d:1"),
    "FrameHold": ("1", "first_frame:d:0 firstFrame:d:0 increment:d:0"),
    "TimeOffset": ("1", "time_offset:d:0 reverse_input:b:false time:x:"),
    "FrameRange": ("1", "first_frame:i:1 last_frame:i:1 time:x:"),
}


def _parse(text):
    found = {}
    for entry in text.split():
        name, kind, default = entry.split(":", 2)
        items = ()
        if kind == "m":
            items = tuple(item.replace("~", " ") for item in default.split("|"))
            default = items[0]
        found[name] = (kind, default.replace("~", " "), items)
    return found


def knobs_of(cls):
    """Return ``{name: (kind, default, items)}`` of a class; None where the class is unknown."""
    if cls not in _TABLE:
        return None
    return {**_parse(_COMMON), **_parse(_TABLE[cls][1])}


def common_knobs():
    """Return the knobs that every node has."""
    return _parse(_COMMON)


def inputs_of(cls):
    """Return how many inputs a node of this class can have; 1 where the class is unknown."""
    return int(_TABLE[cls][0]) if cls in _TABLE else 1
