# SPDX-License-Identifier: Apache-2.0
# What every gizmo has, and knobs whose words were written by hand. tools/new_gizmo.py reads it by
# the knobs' names; a knob of a system that stands here in the same form is taken from here.
# T @NAME is the script of a button: callbacks.press(nuke.thisNode(), 'NAME').
 knobChanged "try:\n    from gencomp_nuke import callbacks\nexcept ImportError:\n    pass\nelse:\n    callbacks.knob_changed(nuke.thisNode(), nuke.thisKnob())"
 onCreate "try:\n    from gencomp_nuke import callbacks\nexcept ImportError:\n    pass\nelse:\n    callbacks.created(nuke.thisNode())"
# --- Main
 addUserKnob {26 gc_status l " " t "What this node is doing, or why it stopped." T "HINT" +STARTLINE +DO_NOT_WRITE}
 addUserKnob {22 gc_generate l Generate t "Render the inputs, send them to the server and bring the layers back. Nuke stays usable meanwhile; the previous result stays until the new one is whole." T @generate +STARTLINE}
 addUserKnob {22 gc_cancel l Cancel t "Stop the job of this node. The previous result stays." T @cancel -STARTLINE}
 addUserKnob {22 gc_resume l Resume t "Take up the job that this node was waiting for when Nuke was closed. Shown while there is one." T @resume -STARTLINE +HIDDEN}
 addUserKnob {22 gc_preview l "Preview here" t "Make 17 frames around the playhead as a draft, as a version of its own. The node plays them; the version before stays on disk." T @preview +STARTLINE}
 addUserKnob {22 gc_estimate l Estimate t "Ask the server how long this would take and how much memory and disk it needs. Nothing is rendered or computed." T @estimate -STARTLINE}
 addUserKnob {26 gc_plan l " " t "Minutes, GPU memory and bytes of a run with what is set now, as the server estimates them." T "" +STARTLINE +DO_NOT_WRITE}
 addUserKnob {4 gc_view l view t "What is drawn over the picture. output: nothing. compare: what is played beside the result named on tab Takes. difference: how far the picture is from the plate, times gain on tab Takes. overlay: the plate, red where the alpha of what output shows is. Set it back to output before you render." M {output compare difference overlay}}
 gc_view output
 addUserKnob {6 gc_live l live t "result is the effect over the plate as it is now: regrade the plate, and the effect stays on it. Off: the picture as it was delivered." -STARTLINE}
 gc_live true
 addUserKnob {7 gc_mix l mix t "Share of what this node does, as in any other node: 0 is the plate. 0 to 1." R 0 1}
 gc_mix 1
 addUserKnob {4 gc_clean_cover l "CleanPlate is" t "sequence: one clean picture for every frame. stills: one painted picture, or a few, at the frames listed beside only; they are brought to every other frame." M {sequence stills}}
 gc_clean_cover sequence
 addUserKnob {1 gc_clean_frames l "at frames" t "Frames at which the clean plate was painted, such as 1001,1024 or 1001-1048x12. Used when CleanPlate is stills." -STARTLINE}
 gc_clean_frames ""
 addUserKnob {26 gc_divider_frames l Frames t "Which frames are generated."}
 addUserKnob {4 gc_range l range t "Frames to generate. input: the range of what is connected as plate. project: the range of the script. custom: the two numbers beside." M {input project custom}}
 gc_range input
 addUserKnob {3 gc_first l first t "First frame, when range is custom." -STARTLINE}
 gc_first 1001
 addUserKnob {3 gc_last l last t "Last frame, when range is custom; it is generated too." -STARTLINE}
 gc_last 1024
 addUserKnob {26 gc_divider_sampling l Sampling t "How well, from which chance, and how bright a video model sees the plate."}
 addUserKnob {4 quality l quality t "draft: at most 10 steps and, on a GPU, reused steps, for a first look. final: as the knobs say." M {draft final}}
 quality final
 addUserKnob {3 seed l seed t "Same seed, same inputs, same pixels. 0 to 2147483647." R 0 2147483647}
 seed 0
 addUserKnob {7 exposure l exposure t "Stops by which a video model sees the plate brighter; what comes back keeps the plate's own exposure. Darken a plate whose highlights matter. -8 to 8." R -8 8}
 exposure 0
 addUserKnob {26 gc_divider_presets l Presets t "Values for several knobs at once."}
 addUserKnob {4 gc_preset l "node preset" t "Values for a usual task: those of gencomp, of your studio and your own. Apply sets the knobs that it names and leaves all others." M {"choose a preset"} +DO_NOT_WRITE}
 addUserKnob {22 gc_preset_apply l Apply t "Set the knobs that the preset beside names, in one step of undo. The line on top says which; a knob with an expression is left." T @preset -STARTLINE}
 addUserKnob {22 gc_preset_save l "Save as preset" t "Keep every knob that is not at its default as a preset of your own, in knobs.json of gencomp's folder. Keyframes, places, names and the seed are the shot's and stay out." T @preset_save -STARTLINE}
 addUserKnob {22 gc_reset l Reset t "Set the knobs of the job back to their defaults, your studio's counted, in one step of undo. It asks before it touches keyframes and placement, and never touches results, cache, server, range, names and takes." T @reset -STARTLINE}
# --- Mask & Keyframes, of systems with keyframes
 addUserKnob {22 gc_detect l "Detect from Roto" t "Fill the keyframes from the roto that is connected: every frame at which a visible shape upstream has a key." T @detect +STARTLINE}
 addUserKnob {22 gc_key_add l "Add" t "Make the current frame a keyframe: its mask counts." T @key_add -STARTLINE}
 addUserKnob {22 gc_key_remove l "Remove" t "Take the current frame out of the keyframes: the model decides there." T @key_remove -STARTLINE}
 addUserKnob {22 gc_key_previous l "Previous" t "Go to the keyframe before the current frame." T @key_previous -STARTLINE}
 addUserKnob {22 gc_key_next l "Next" t "Go to the keyframe after the current frame." T @key_next -STARTLINE}
 addUserKnob {4 gc_static_shapes l "shapes without keys" t "What Detect makes of a shape that does not move: asks, counts it on all frames, or only where it has its one key." M {ask "all frames" none}}
 gc_static_shapes ask
 addUserKnob {3 gc_every l "every" t "Detect keeps every so many of the keyframes it finds, and the last: 1 keeps all. For a tracked roto, with a key on every frame. 1 to 100." R 1 100 -STARTLINE}
 gc_every 1
 addUserKnob {6 gc_is_key l "is a keyframe" t "On at the keyframes, so that the dope sheet shows them. Follows the list; a key that is moved, set or removed is read back into it." +STARTLINE}
 gc_is_key false
 addUserKnob {26 gc_key_state l " " t "What the mask means at the current frame." T "" -STARTLINE +DO_NOT_WRITE}
 addUserKnob {26 gc_status_keys l " " t "What this node says: how the button ended that was pressed last." T "" +STARTLINE +DO_NOT_WRITE}
# --- Placement, of systems that place elements
 addUserKnob {4 gc_element l "way of" t "Whose way the buttons below write." M {Fg1 Fg2 Fg3 Fg4}}
 gc_element Fg1
 addUserKnob {12 gc_point l point t "A place in the plate, to be dragged in the viewer; y runs up. Add puts it into the trajectory at the current frame."}
 gc_point {0 0}
 addUserKnob {22 gc_point_add l "Add" t "Put the point into the trajectory at the current frame." T @point_add -STARTLINE}
 addUserKnob {22 gc_point_remove l "Remove" t "Take the trajectory's point at the current frame away." T @point_remove -STARTLINE}
 addUserKnob {1 gc_sample_from l "follow node" t "Name of a Tracker or Transform in this script whose way is taken: Tracker1, or Tracker1:2 for its second track."}
 gc_sample_from ""
 addUserKnob {22 gc_sample l "From Tracker or Transform" t "Write the way of the node named beside: of a Tracker into trajectory, a point a frame; of a Transform into transform, a matrix a frame." T @sample -STARTLINE}
 addUserKnob {7 gc_scale_curve l "scale curve" t "Size of the element as a curve: animate it, then press the button beside. 0.01 to 10." R 0.01 10}
 gc_scale_curve 1
 addUserKnob {22 gc_sample_scale l "To scale" t "Write the curve into scale, a value wherever it is not straight." T @sample_scale -STARTLINE}
 addUserKnob {22 gc_placing_preview l "Draw path" t "Draw the way, the placed box and what may change over the first, middle and last frame, and open the picture. Needs no model." T @placing_preview +STARTLINE}
 addUserKnob {26 gc_status_way l " " t "What this node says: how the button ended that was pressed last." T "" +STARTLINE +DO_NOT_WRITE}
# --- Beside knobs of one system
 addUserKnob {22 gc_assist l "write the texts" t "Let your assistant write the four texts above from the instruction and three frames. It shows which frames and words would leave, and to which host, and sends nothing before you agree. Off until the settings name an assistant and allow the network." T @assist -STARTLINE}
# --- Takes
 addUserKnob {20 gc_tab_takes l Takes}
 addUserKnob {26 gc_divider_takes l Takes t "Several runs that differ in seed or words, as one job."}
 addUserKnob {43 gc_wedge l "takes" t "One take a line: seed=3, or prompt=dust in the wind. 1-8 alone is eight takes with the seeds 1 to 8."}
 gc_wedge ""
 addUserKnob {22 gc_run_wedge l "Run the takes" t "Make all takes as one job; the inputs are sent and encoded once. They lie in one version, take01, take02 and so on." T @wedge +STARTLINE}
 addUserKnob {3 gc_take l take t "Which take of the version is played. Counts where the version has takes. 1 to 64." R 1 64}
 gc_take 1
 addUserKnob {3 gc_take_count t "How many takes the version has that is played." +INVISIBLE}
 gc_take_count 0
 addUserKnob {22 gc_promote l "Promote to final" t "Set the knobs to those of this take and make the whole range at final quality." T @promote -STARTLINE}
 addUserKnob {22 gc_sheet l "Contact sheet" t "Draw all takes into one picture; of a result that has none, all its layers." T @sheet -STARTLINE}
 addUserKnob {26 gc_sheet_picture l " " t "The contact sheet of the takes or layers; a click opens it." T "" +STARTLINE +DO_NOT_WRITE}
 addUserKnob {26 gc_divider_compare l Compare t "Two results side by side, with view on Main set to compare."}
 addUserKnob {2 gc_compare_folder l "compare with" t "Folder of the result to compare with: a version or a take."}
 gc_compare_folder ""
 addUserKnob {22 gc_compare_pick l "The version before" t "Compare with the version before the one that is played." T @compare_pick +STARTLINE}
 addUserKnob {4 gc_compare_mode l "compare by" t "wipe: what is played on the left, the other on the right. difference: how far they are apart, times gain." M {wipe difference} -STARTLINE}
 gc_compare_mode wipe
 addUserKnob {7 gc_wipe l wipe t "Where the wipe stands, as a share of the width. 0 to 1." R 0 1}
 gc_wipe 0.5
 addUserKnob {7 gc_gain l gain t "Factor of the difference. 1 to 100." R 1 100}
 gc_gain 1
 addUserKnob {26 gc_compare_knobs l " " t "Knobs that differ between the two results, by their manifests." T "" +STARTLINE +DO_NOT_WRITE}
 addUserKnob {26 gc_status_takes l " " t "What this node says: how the button ended that was pressed last." T "" +STARTLINE +DO_NOT_WRITE}
# --- Cache & Server
 addUserKnob {20 gc_tab_cache l "Cache & Server"}
 addUserKnob {26 gc_divider_output l Output t "Where results lie on disk."}
 addUserKnob {2 gc_cache l cache t "Folder for the results of this node. Each run makes a folder v001, v002 ... in it; nothing is ever overwritten. A script without a name uses a folder of your home instead."}
 gc_cache "\[file dirname \[value root.name]]/gencomp/\[file rootname \[file tail \[value root.name]]]/\[value name]_\[value gc_id]"
 addUserKnob {2 gc_folder l result t "Folder of the result that this node plays now. Point it at an older version to play that one."}
 gc_folder ""
 addUserKnob {4 gc_version_pick l version t "Versions in the cache with their sizes; choosing one plays it." M {none}}
 gc_version_pick none
 addUserKnob {22 gc_delete l Delete t "Delete the version chosen beside from disk. One that any script in this script's folder names is not deleted." T @delete -STARTLINE}
 addUserKnob {22 gc_reveal l "open folder" t "Show the folder of the result in the file browser." T @reveal -STARTLINE}
 addUserKnob {6 gc_merge l "merge into version" t "A part of the range goes into the version that is played: what comes out is a new version with the new frames in it and all others as they were." +STARTLINE}
 gc_merge false
 addUserKnob {4 gc_outside l "outside the range" t "What layers are before the first and after the last frame of the result. hold: the nearest of the two. black: nothing is there, so the live result is the plate, bit for bit, and a picture as it was delivered is black." M {hold black}}
 gc_outside hold
 addUserKnob {4 gc_missing l "missing frames" t "What a layer is at a frame within the range whose file is gone. error: viewer and render stop there. black: nothing. nearest frame: the nearest that is there. The node says which frames are gone." M {error black "nearest frame"}}
 gc_missing error
 addUserKnob {26 gc_divider_rendering l "What is sent" t "How what is connected becomes the files that are sent."}
 addUserKnob {4 gc_depth l "inputs written as" t "Depth of the plate as it is sent; the layers come back in the same depth. 32 bit float is exact for any input. 16 bit half takes half the space and is exact for plates that were stored so and not changed since." M {"16 bit half" "32 bit float"}}
 gc_depth "32 bit float"
 addUserKnob {4 gc_inputs l "render inputs" t "here: in this Nuke, with its progress bar. in a background Nuke: in a second one, from a saved copy of the script; it takes a render licence." M {here "in a background Nuke"}}
 gc_inputs here
 addUserKnob {6 gc_files l "send files as they are" t "Where a Read of a scene-linear EXR sequence is connected with nothing between, its own files are sent instead of rendered copies." +STARTLINE}
 gc_files true
 addUserKnob {3 gc_handles l handles t "Frames more on both sides, where the inputs have them: the model sees them and they are delivered too. 0 to 100." R 0 100}
 gc_handles 0
 addUserKnob {26 gc_divider_server l Server t "Who does the work."}
 addUserKnob {1 gc_server l server t "auto: the server named by GENCOMP_SERVER, else by the user's settings, else one of this machine, started when needed. Or the address of a server: tcp://127.0.0.1:5570."}
 gc_server auto
 addUserKnob {4 gc_policy l "without a result" t "What a render without an interface does. read: stops with one line where a frame of the cache is missing. compute: makes the result first, once. error: stops unless every result is whole and up to date." M {read compute error}}
 gc_policy read
 addUserKnob {22 gc_check l "Check set-up" t "Say which server this node would use, its version, weights and their licence class, free disk, and where each setting comes from." T @check +STARTLINE}
 addUserKnob {26 gc_divider_plain l "Plain nodes" t "The result as nodes that need nothing of gencomp."}
 addUserKnob {22 gc_bake l Bake t "Make plain Reads and Merges beside this node that give the same pixels." T @bake +STARTLINE}
 addUserKnob {22 gc_explode l "Explode layers" t "Make one column of Reads, one for each layer, and the Merges that put them together, beside this node. Again: update it." T @explode -STARTLINE}
 addUserKnob {26 gc_status_cache l " " t "What this node says: how the button ended that was pressed last." T "" +STARTLINE +DO_NOT_WRITE}
# --- Advanced
 addUserKnob {20 gc_tab_advanced l Advanced}
 addUserKnob {20 gc_group_delivery l Delivery n 1}
 addUserKnob {20 gc_group_delivery_end l endGroup n -1}
 addUserKnob {20 gc_group_model l "Video model" n 2}
 addUserKnob {20 gc_group_model_end l endGroup n -1}
 addUserKnob {20 gc_group_speed l "Speed on a GPU" n 2}
 addUserKnob {20 gc_group_speed_end l endGroup n -1}
 addUserKnob {20 gc_group_continue l Continue n 2}
 addUserKnob {20 gc_group_continue_end l endGroup n -1}
 addUserKnob {26 gc_divider_delivery l Delivery t "How what was made becomes files. Turning these takes seconds, as long as the server runs."}
 addUserKnob {26 gc_divider_speed l "Speed on a GPU" t "The defaults are exact. Whatever else is chosen here is named in the manifest."}
 addUserKnob {4 grain l grain t "match: what is generated or taken from another frame gets grain like the plate's, measured by channel and brightness. keep: it stays as it came. A frame's own samples are never touched." M {keep match}}
 grain keep
 addUserKnob {6 origin l origin t "Also deliver origin: mattes that say where each delivered pixel comes from. It lies beside the other layers on disk." +STARTLINE}
 origin false
 addUserKnob {6 other_channels l "other channels" t "Carry every other channel, part and view of the plate's files into the delivered picture, bit for bit: depth, normals, Cryptomatte. The files of this node's plate are rendered by Nuke and hold RGB alone; it serves gencomp run." +STARTLINE +INVISIBLE}
 other_channels false
 addUserKnob {4 backbone l backbone t "Which video model. auto: the best that the server has, may use and can run. tiny tests a pipeline; its pictures mean nothing." M {auto casper wan-casper-1.3b wan-casper-14b cogvideox-fun-v1.5-5b-inp cogvideox-fun-v1.1-5b-inp tiny}}
 backbone auto
 addUserKnob {3 steps l steps t "Denoising steps; time grows with them. 1 to 1000." R 1 1000}
 steps 50
 addUserKnob {7 guidance l guidance t "How far the prompt may pull. 1: as the model was trained, in half the time. 1 to 20." R 1 20}
 guidance 1
 addUserKnob {1 model_size l "model size" t "Width x height the model works at, multiples of 16, such as 672x384. Empty: the size it was trained on, in the plate's shape where the model takes any."}
 model_size ""
 addUserKnob {6 compiled l "compile the model" t "A minute more at first, then faster." +STARTLINE}
 compiled false
 addUserKnob {4 attention l attention t "Attention kernels. native and cudnn are exact; flash and sage need their libraries on the server." M {native cudnn flash sage}}
 attention native
 addUserKnob {7 cached_steps l "reuse steps" t "Reuse a step whose first block changed less than this share: 0.05 to 0.2 saves a third and more. 0: every step is computed. 0 to 1." R 0 1}
 cached_steps 0
 addUserKnob {4 precision l precision t "exact: the weights' own precision. fp8: weights kept in 8 bits, in half the memory." M {exact fp8}}
 precision exact
# --- About
 addUserKnob {20 gc_tab_about l About}
 addUserKnob {26 gc_version l version t "Version of this node, of gencomp." T "NAME 0.1.0"}
 addUserKnob {26 gc_about l " " t "What this node is." T "AFTER\nEverything that was generated is on disk as EXR and plays without a server, without Python and on the farm.\nUnder the Apache License 2.0."}
 addUserKnob {22 gc_example l "Load the example" t "Put the example script of this node into this script, with its pictures." T @example +STARTLINE}
 addUserKnob {22 gc_help l "Help page" t "Open the page of this node, with every knob and what to do when something looks wrong. It lies on this disk; nothing is fetched." T @help -STARTLINE}
 addUserKnob {26 gc_status_about l " " t "What this node says: how the button ended that was pressed last." T "" +STARTLINE +DO_NOT_WRITE}
 addUserKnob {1 gc_system t "Wire name of the system; how gencomp knows its own nodes." +INVISIBLE}
 gc_system ""
 addUserKnob {3 gc_schema t "Version of the knobs of this node, for migrations." +INVISIBLE}
 gc_schema 2
 addUserKnob {1 gc_params t "Knobs that are sent to the server." +INVISIBLE}
 gc_params ""
 addUserKnob {1 gc_pipes t "Pipes of this node, and the inputs that they are." +INVISIBLE}
 gc_pipes ""
 addUserKnob {1 gc_needs t "Pipes that must be connected." +INVISIBLE}
 gc_needs ""
 addUserKnob {1 gc_layers t "Layers that this node can play." +INVISIBLE}
 gc_layers ""
 addUserKnob {1 gc_outputs t "What the output menu offers, in places that never move." +INVISIBLE}
 gc_outputs ""
 addUserKnob {1 gc_coordinates t "Knobs that hold places in a picture." +INVISIBLE}
 gc_coordinates ""
 addUserKnob {1 gc_hint t "What the node says before anything is generated." +INVISIBLE}
 gc_hint ""
 addUserKnob {1 gc_id t "Identity of this node; names its folder in the cache." +INVISIBLE}
 gc_id ""
 addUserKnob {1 gc_key t "Fingerprint of what the result was made from that is played." +INVISIBLE}
 gc_key ""
 addUserKnob {1 gc_job t "Job on the server that this node is waiting for." +INVISIBLE}
 gc_job ""
 addUserKnob {1 gc_note t "Second line of the node's label." +DO_NOT_WRITE +INVISIBLE}
 addUserKnob {1 gc_export t "Folder into which the inputs are rendered." +DO_NOT_WRITE +INVISIBLE}
 addUserKnob {6 gc_rendering t "On while gencomp itself renders the inputs; nothing else switches the inner Writes on." +DO_NOT_WRITE +INVISIBLE}
 addUserKnob {1 gc_backbone t "Video model of the result, and the class of its licence." +INVISIBLE}
 gc_backbone ""
 addUserKnob {3 gc_result_first t "First frame of the result on disk." +INVISIBLE}
 gc_result_first 0
 addUserKnob {3 gc_result_last t "Last frame of the result on disk." +INVISIBLE}
 gc_result_last 0
# --- Knobs of Omnimatte whose words were written by hand
 addUserKnob {4 clean_plate_from l "clean plate from" t "What makes the clean plate when none is connected, and with two objects or more a plate of each alone. model: a video model. temporal: other frames of the plate show what is hidden in this one. auto: model where the server has one, else temporal." M {auto temporal model}}
 clean_plate_from auto
 addUserKnob {6 register_clean_plate l "register clean plate" t "Line a connected clean plate up with the plate, frame by frame. Switch it off where it fits already." +STARTLINE}
 register_clean_plate true
 addUserKnob {1 order l order t "Matte names from front to back, separated by commas. It may change over time: a, b; 1010: b, a has b in front from frame 1010 on. Empty: the order of the pipes, Matte1 in front. What is connected to Depth goes before it."}
 order ""
 addUserKnob {4 depth_near l "depth is near where" t "What the channel of pipe Depth says of what is near. small: it is a distance. large: it is one over the distance, as Nuke's own depth." M {small large}}
 depth_near small
 addUserKnob {4 residual l residual t "What becomes of the small difference between the layers and the plate. absorb: it goes into a layer, so that over of the layers is the plate. layer: it is delivered apart, as residual." M {absorb layer}}
 residual absorb
 addUserKnob {6 split_effects l "split effects" t "Deliver each object a second time as name_object and name_effects: the object alone, and what it causes alone." +STARTLINE}
 split_effects false
 addUserKnob {4 mattes l mattes t "How far the mattes can be relied on. trusted: their edges lie within a few pixels of the object. rough: they only say where about it is." M {trusted rough}}
 mattes trusted
 addUserKnob {3 model_long_edge l "model long edge" t "Long edge, in pixels, of the pictures on which motion and layers are worked out. Layers are always delivered at plate size. 128 to 2048." R 128 2048}
 model_long_edge 640
 addUserKnob {1 scene_prompt l "scene prompt" t "The scene as it is without the objects, in a few words. It matters little, but what has nothing to do with the scene does harm."}
 scene_prompt "empty scene"
 addUserKnob {3 matte_grow l "matte grow" t "Pixels by which mattes are grown on every side before the model sees them, at the model's size: on a 4K plate six times as many. 0 to 64." R 0 64}
 matte_grow 5
 addUserKnob {1 passes l "pass seeds" t "Passes to make again from other noise: boy=3 makes the solo of boy again, background=7 the clean plate. All others stay as they are. Empty: all start from the seed."}
 passes ""
