# SPDX-License-Identifier: Apache-2.0
"""The node classes that the stand-in knows: their knobs, kinds, defaults and inputs.

Only knob names seen in public scripts of that class. A class that is not here can be loaded and
saved, but not computed, and its knobs are not checked.
"""

import functools

# Entries are name:kind:default; ~ stands for a space. Kinds: s text, e text with [tcl], f file,
# i int, d number, b switch, m menu, c channel, l channels, p button, x anything, fmt format;
# several numbers: xy xyz uv wh sc rgb col box; roto and trk curves and tracks.
_COMMON = (
    "name:s: xpos:i:0 ypos:i:0 label:e: note_font:s: note_font_size:d:11 note_font_color:i:0 "
    "tile_color:i:0 gl_color:i:0 selected:b:false hide_input:b:false cached:b:false "
    "disable:b:false dope_sheet:b:false bookmark:b:true postage_stamp:b:false "
    "postage_stamp_frame:i:1 lifetimeStart:i:0 lifetimeEnd:i:0 useLifetime:b:false help:e: "
    "knobChanged:s: onCreate:s: onDestroy:s: updateUI:s: autolabel:s: icon:s: indicators:i:0 "
    "rootNodeUpdated:s: panel:s: process_mask:x: cacheLocal:x: Mov:x:"
)
_MASK = (
    " maskChannelInput:c:none maskChannelMask:c:none inject:b:false invert_mask:b:false "
    "fringe:b:false unpremult:c:none maskFrom:x: maskFromFlag:x: mix:d:1"
)
_FILTER = (
    "filter:m:Cubic|Impulse|Keys|Simon|Rifman|Mitchell|Parzen|Notch|Lanczos4|Lanczos6|Sinc4 "
    "clamp:b:false black_outside:b:true"
)
_MOVED = (
    "translate:xy:0~0 rotate:d:0 scale:sc:1 skewX:d:0 skewY:d:0 skew_order:m:XY|YX center:xy:0~0 "
    "invert_matrix:b:false motionblur:d:0 shutter:d:0.5 "
    "shutteroffset:m:start|centred|end|custom shuttercustomoffset:d:0 " + _FILTER
)
_FROM_TO = " ".join(f"from{i}:c:none to{i}:c:none" for i in range(8))
_EXPRESSION = " ".join(
    f"temp_name{i}:s: temp_expr{i}:s: channel{i}:l:rgba.{c} expr{i}:s:"
    for i, c in enumerate(("red", "green", "blue", "alpha"))
)
_MERGES = (
    "over|atop|average|color-burn|color-dodge|conjoint-over|copy|difference|disjoint-over|divide|"
    "exclusion|from|geometric|hard-light|hypot|in|mask|matte|max|min|minus|multiply|out|overlay|"
    "plus|screen|soft-light|stencil|under|xor"
)
_ERODE = "channels:l:rgba size:wh:1 "
_SHOWN = "format:fmt: proxy_format:s: "
_TABLE = {
    "Group": ("1", ""),
    "LiveGroup": ("1", "published:b:false file:f: modified:b:false liveGroupAutosave:x: gsv:gsv:"),
    "VariableGroup": ("1", "gsv:gsv:"),
    "Root": (
        "0",
        "first_frame:i:1 last_frame:i:100 frame:d:1 fps:d:24 proxy:b:false format:fmt: "
        "proxy_format:s: proxy_type:m:scale|format proxy_scale:d:0.5 inputs:x: "
        "colorManagement:x:Nuke "
        "workingSpaceLUT:s:linear "
        "monitorLut:x: int8Lut:x: int16Lut:x: logLut:x: floatLut:x: OCIO_config:x: "
        "customOCIOConfigPath:f: defaultViewerLUT:x: views:s:main project_directory:f: "
        "lock_range:b:false frame_range:x: onScriptLoad:s: onScriptSave:s: onScriptClose:s: "
        "luts:x: render_mode:x: free_type:x: proxySetting:s: views_colours:b:false "
        "hero_view:i:0 viewerLut:x: monitorOutLut:x: monitorOutLUT:x: workingSpace:x: "
        "transparency_grid:x: last_used_cmd:x: gsv:gsv:",
    ),
    "Viewer": (
        "10",
        "frame:d:1 frame_range:s: input_number:i:0 viewerProcess:s: viewerInputOrder:x: "
        "rgb_only:x: "
        "frame_range_lock:b:false fps:d:24 channels:l:rgba gain:d:1 gamma:d:1 inputs:x: "
        "frame_increment:i:1 colour_sample_bbox:x: samplepoint:x: viewerLut:x: zoom_lock:x: ",
    ),
    "Preferences": ("0", ""),
    "Input": ("0", "number:i:0"),
    "Output": ("1", ""),
    "Dot": ("1", ""),
    "NoOp": ("1", ""),
    "StickyNote": ("0", ""),
    "BackdropNode": ("0", "bdwidth:i:400 bdheight:i:300 z_order:i:0 appearance:x: border_width:x:"),
    "PostageStamp": ("1", ""),
    "Precomp": (
        "0",
        "file:f: useOutput:b:false outputNode:s: reading:b:false ver:i:0 on_error:x: "
        "reload_script:p:",
    ),
    "Switch": ("2", "which:d:0"),
    "Dissolve": ("2", "channels:l:all which:d:0" + _MASK),
    "Copy": ("2", _FROM_TO + " channels:l:none bbox:x:union metainput:x: " + _MASK),
    "Merge2": (
        "2",
        f"operation:m:{_MERGES} "
        "bbox:m:union|intersection|A|B Achannels:l:rgba Bchannels:l:rgba output:l:rgba "
        "also_merge:l:none metainput:m:B|A|All screen_alpha:b:false rangeinput:x: "
        "sRGB:b:false" + _MASK,
    ),
    "ChannelMerge": (
        "2",
        f"A:c:rgba.alpha B:c:rgba.alpha output:c:rgba.alpha operation:m:union|{_MERGES}" + _MASK,
    ),
    "Keymix": (
        "3",
        "channels:l:all maskChannel:c:rgba.alpha maskChannelMask:c:rgba.alpha invertMask:b:false "
        "mix:d:1 bbox:m:union|B|A",
    ),
    "Read": (
        "0",
        "file:f: file_type:s: format:fmt: proxy:f: proxy_format:s: first:i:1 last:i:1 "
        "before:m:hold|loop|bounce|black after:m:hold|loop|bounce|black "
        "frame_mode:m:expression|start~at|offset frame:s: origfirst:i:1 origlast:i:1 "
        "origset:b:false on_error:m:error|black|checkerboard|nearest~frame raw:b:false "
        "premultiplied:b:false auto_alpha:b:false colorspace:s:default reload:p: version:i:0 "
        "localizationPolicy:m:fromAutoLocalizePath|on|onDemand|off time:x: noprefix:b:false "
        "offset_negative_display_window:b:true "
        "edge_pixels:x: multiview:x:",
    ),
    "Write": (
        "1",
        "file:f: proxy:f: file_type:s: channels:l:rgb colorspace:s:default raw:b:false "
        "premultiplied:b:false datatype:m:16~bit~half|32~bit~float "
        "compression:s:Zip~(1~scanline) autocrop:b:false metadata:x: "
        "create_directories:b:false checkHashOnRead:b:true use_limit:b:false first:i:1 last:i:1 "
        "frame_mode:x: frame:s: render_order:d:1 version:i:0 views:s: interleave:x: reading:x: "
        "ocioColorspace:x: display:x: view:x: first_part:x: write_ACES_compliant_EXR:x: "
        "beforeRender:s: afterRender:s: beforeFrameRender:s: afterFrameRender:s: Render:p:",
    ),
    "Constant": ("0", "color:col:0 channels:l:rgba first:i:1 last:i:1 " + _SHOWN),
    "CheckerBoard2": (
        "0",
        "boxsize:wh:64 color0:col:0.1 color1:col:0.5 color2:col:0.1 color3:col:0.5 linecolor:col:1 "
        "linewidth:wh:0 centerlinecolor:col:1 centerlinewidth:wh:0 first:i:1 last:i:1 " + _SHOWN,
    ),
    "Ramp": ("1", "p0:xy:0~0 p1:xy:0~100 color:col:1 type:x: output:l:rgba" + _MASK),
    "Multiply": ("1", "channels:l:rgb value:col:1" + _MASK),
    "Add": ("1", "channels:l:rgb value:col:0" + _MASK),
    "Gamma": ("1", "channels:l:rgb value:col:1" + _MASK),
    "Invert": ("1", "channels:l:rgba clamp:b:false" + _MASK),
    "Saturation": ("1", "channels:l:rgb saturation:d:1 mode:x:" + _MASK),
    "EXPTool": (
        "1",
        "channels:l:rgb mode:m:Stops|Densities|Printer~Lights red:d:0 green:d:0 "
        "blue:d:0 gang:b:true" + _MASK,
    ),
    "Grade": (
        "1",
        "channels:l:rgb blackpoint:col:0 whitepoint:col:1 black:col:0 white:col:1 multiply:col:1 "
        "add:col:0 gamma:col:1 reverse:b:false black_clamp:b:true white_clamp:b:false" + _MASK,
    ),
    "Clamp": (
        "1",
        "channels:l:all minimum:col:0 minimum_enable:b:true maximum:col:1 maximum_enable:b:true "
        "MinClampTo:col:0 MinClampTo_enable:b:false MaxClampTo:col:1 MaxClampTo_enable:b:false"
        + _MASK,
    ),
    "Expression": ("1", _EXPRESSION + _MASK),
    "MergeExpression": ("2", _EXPRESSION + _MASK),
    "Premult": ("1", "channels:l:rgb alpha:c:rgba.alpha invert:b:false"),
    "Unpremult": ("1", "channels:l:rgb alpha:c:rgba.alpha invert:b:false"),
    "Shuffle": (
        "1",
        "in:l:rgba in2:l:none out:l:rgba out2:l:none red:s:red green:s:green blue:s:blue "
        "alpha:s:alpha black:s:red white:s:green red2:s:blue green2:s:alpha" + _MASK,
    ),
    "ShuffleCopy": (
        "2",
        "in:l:rgba in2:l:rgba out:l:rgba out2:l:none red:s:red2 green:s:green2 blue:s:blue2 "
        "alpha:s:alpha black:s:black white:s:white red2:s:red green2:s:green" + _MASK,
    ),
    "Shuffle2": (
        "1",
        "fromInput1:x:{0}~B in1:l:rgba fromInput2:x:{0}~B in2:l:none out1:l:rgba out2:l:none "
        "mappings:s:4~rgba.red~0~0~rgba.red~0~0~rgba.green~0~1~rgba.green~0~1~rgba.blue~0~2~"
        "rgba.blue~0~2~rgba.alpha~0~3~rgba.alpha~0~3",
    ),
    "AddChannels": (
        "1",
        "channels:l:none channels2:l:none channels3:l:none channels4:l:none "
        "color:col:0 format_size:b:false",
    ),
    "Remove": (
        "1",
        "operation:m:remove|keep channels:l:all channels2:l:none channels3:l:none channels4:l:none",
    ),
    "Transform": ("1", _MOVED),
    "Position": ("1", "translate:xy:0~0"),
    "Tracker4": (
        "1",
        "tracks:trk: " + _MOVED + " reference_frame:i:1 transform:m:none|stabilize|match-move|"
        "remove~jitter|add~jitter use_for:x: jitter_period:x: smoothT:x: smoothR:x: smoothS:x: "
        "livelink_transform:x: selected_tracks:x: robustness_enabled:x: cornerPinOptions:x: "
        "create_new_track:x: keyframe_display:x: ",
    ),
    "Blur": (
        "1",
        "channels:l:all size:wh:0 filter:m:gaussian|box|triangle|quadratic quality:i:15 "
        "crop:b:true cache_intermediate:x:" + _MASK,
    ),
    "FilterErode": (
        "1",
        _ERODE + "filter:m:box|gaussian|triangle|quadratic quality:i:15 crop:b:true" + _MASK,
    ),
    "Dilate": ("1", _ERODE + _MASK),
    "Erode": ("1", _ERODE + "blur:d:0 quality:i:15" + _MASK),
    "Crop": (
        "1",
        "box:box:0~0~0~0 softness:d:0 reformat:b:false intersect:b:false crop:b:true preset:x:",
    ),
    "Reformat": (
        "1",
        "type:m:to~format|to~box|scale format:fmt: box_width:i:200 box_height:i:200 "
        "box_fixed:b:false box_pixel_aspect:d:1 scale:sc:1 "
        "resize:m:width|none|height|fit|fill|distort center:b:true flip:b:false flop:b:false "
        "turn:b:false pbb:b:false " + _FILTER,
    ),
    "BlackOutside": ("1", ""),
    "CopyBBox": ("2", ""),
    "AdjBBox": ("1", "numpixels:wh:0"),
    "CopyMetaData": ("2", "mergeMode:x: copyOnly:x: excludeOnly:x:"),
    "ModifyMetaData": ("1", "metadata:x:"),
    "ViewMetaData": ("1", "metadata:x:"),
    "FrameHold": ("1", "first_frame:d:0 firstFrame:d:0 increment:d:0"),
    "TimeOffset": ("1", "time_offset:d:0 reverse_input:b:false time:x:"),
    "FrameRange": ("1", "first_frame:i:1 last_frame:i:1 time:x: reset:p:"),
    "Retime": (
        "1",
        "input.first:d:1 input.last:d:100 output.first:d:1 output.last:d:100 "
        "input.first_lock:b:false input.last_lock:b:false output.first_lock:b:false "
        "output.last_lock:b:false reverse:b:false speed:d:1 shutter:d:0 filter:x: "
        "before:x: after:x: time:x:",
    ),
    "OneView": ("1", "view:s:main"),
    "JoinViews": ("2", "viewassoc:s:"),
    "Roto": (
        "1",
        "curves:roto: output:l:alpha premultiply:l:none format:fmt: cliptype:x: "
        "replace:b:false toolbox:x: toolbar_:x: motionblur_on:b:false opacity:d:1 "
        "inputmask:c:none" + _MASK,
    ),
}
_TABLE["RotoPaint"] = _TABLE["Roto"]
_MASKED = frozenset(name for name, (_, knobs) in _TABLE.items() if "maskChannelInput" in knobs)
GROUPS = ("Group", "LiveGroup", "VariableGroup")


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


@functools.cache
def knobs_of(cls):
    """Return ``{name: (kind, default, items)}`` of a class; None where the class is unknown."""
    if cls not in _TABLE:
        return None
    return {**_parse(_COMMON), **_parse(_TABLE[cls][1])}


@functools.cache
def common_knobs():
    """Return the knobs that every node has."""
    return _parse(_COMMON)


def inputs_of(cls):
    """Return how many inputs a node of this class can have; 1 where the class is unknown."""
    return int(_TABLE[cls][0]) if cls in _TABLE else 1


def mask_input_of(cls):
    """Return the number of the input that is a mask, or None."""
    if cls not in _MASKED or cls in ("Roto", "RotoPaint"):
        return None
    return inputs_of(cls)
