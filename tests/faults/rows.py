# SPDX-License-Identifier: Apache-2.0
"""The 46 faults that a server has to survive: what happens, what is expected, who is asked.

A test proves a row, or part of one, by ``@pytest.mark.fault("F27")``. ``proofs`` names, by a
part of their names, the tests without which a row proves nothing: where one of them did not run,
the row is not green, however many others passed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        id: ``F01`` to ``F46``.
        layer: Where it happens.
        fault: What happens.
        expected: What the product does then.
        oracle: What decides whether it did.
        proofs: Parts of the names of tests that have to run.
    """

    id: str
    layer: str
    fault: str
    expected: str
    oracle: str
    proofs: tuple[str, ...] = ()


ROWS = (
    Row(
        "F01",
        "input",
        "an EXR cut off at half, or 64 bytes before its end",
        "the job is refused with the frame's number, nothing is queued, the server stays",
        "a typed error within 1 s a frame, no crash, no part of a layer",
        proofs=(
            "test_a_truncated_picture_is_refused_by_its_frame_within_a_second",
            "test_a_truncated_frame_refuses_its_job_and_no_other",
        ),
    ),
    Row(
        "F02",
        "input",
        "damaged EXRs",
        "each is refused, none becomes empty or zero pixels in silence",
        "no signal, no time-out, none taken in silence",
        proofs=(
            "test_whatever_is_done_to_a_good_file_it_is_refused_or_read",
            "test_no_file_is_taken_whose_chunks_are_not_where_they_should_be",
        ),
    ),
    Row(
        "F03",
        "input",
        "a flipped bit inside uncompressed or PIZ pixels",
        "found by the digest of the transport, the frame is asked for again",
        "the mismatch is reported, the second try has the same pixels",
        proofs=(
            "test_a_byte_flipped_on_the_way_is_reported_and_fetched_again",
            "test_a_byte_flipped_on_the_servers_disk_is_reported_and_fetched_again",
        ),
    ),
    Row(
        "F04",
        "input",
        "a small file that claims 46340x46340",
        "refused by its header, before memory is taken",
        "less than 100 MB more memory, less than 100 ms",
        proofs=("test_a_bomb_is_refused_by_its_header_before_memory_is_taken",),
    ),
    Row(
        "F05",
        "input",
        "a data window that is huge, negative, off, or not the display window",
        "taken within limits with its overscan, or refused with the reason",
        "the window comes back exactly, or a typed error",
        proofs=(
            "test_odd_windows_come_back_in_the_layer_exactly",
            "test_a_window_larger_than_is_taken_is_refused_with_its_size",
        ),
    ),
    Row(
        "F06",
        "input",
        "2000 channels, deep, several parts, tiles of a pixel, sub-sampled luma",
        "refused, or taken by a stated rule",
        "a typed error, within 2 s",
        proofs=(
            "test_two_thousand_whole_channels_are_refused_within_two_seconds",
            "test_a_deep_file_is_refused_with_its_cure",
        ),
    ),
    Row(
        "F07",
        "input",
        "TIFF, DPX, PSD or PNG under an EXR's name",
        "refused: the first bytes are not an EXR's",
        "no reader of another format is reached",
        proofs=("test_another_picture_named_exr_never_reaches_a_library",),
    ),
    Row(
        "F08",
        "input",
        "NaN, infinity, denormals, negative samples, 65504 and above",
        "made sane by a stated rule and counted in the report, or refused",
        "no NaN comes out that did not go in, the count is reported",
        proofs=(
            "test_samples_that_are_not_finite_are_counted_in_the_manifest",
            "test_nan_in_a_plate_is_warned_of_and_delivered_as_it_came",
        ),
    ),
    Row(
        "F09",
        "input",
        "missing or doubled frames, mixed sizes, 0, 1 or 86 frames, odd counts of latents",
        "one precise sentence with the frames, padded by the rule for 4n+1",
        "no traceback, the message lists the frames",
        proofs=(
            "test_a_hole_in_the_plate_is_named_with_its_cure",
            "test_the_padded_clip_is_the_shortest_that_vae_and_model_can_take",
            "test_two_sizes_in_a_sequence_are_refused_naming_both",
        ),
    ),
    Row(
        "F10",
        "input",
        "a mask that is missing, empty, white, of another size, inverted, or RGB",
        "refused or warned of by rule, never the plate back in silence",
        "a typed error, or a warning in the result's metadata",
        proofs=(
            "test_a_matte_of_nothing_is_refused_and_one_of_everything_says_so",
            "test_a_matte_of_another_size_than_the_plate_is_refused",
        ),
    ),
    Row(
        "F11",
        "input",
        "bytes that are no UTF-8 in names of attributes and channels",
        "the error's text is escaped, the error path does not raise itself",
        "no second exception",
        proofs=(
            "test_names_that_are_no_text_do_not_stop_a_refusal",
            "test_words_of_the_library_that_are_no_text_make_no_second_error",
        ),
    ),
    Row(
        "F12",
        "security",
        "paths of a client that lead elsewhere: .., absolute, UNC, symlink, NUL, long",
        "refused below the allowed roots, opened without following links",
        "nothing outside the roots is read or written",
        proofs=(
            "test_no_path_leads_out_and_what_is_odd_is_not_read",
            "test_links_that_are_swapped_meanwhile_never_lead_out",
        ),
    ),
    Row(
        "F13",
        "security",
        "a client without a secret, with another server's key, or without encryption",
        "no request reaches the server, the client has a clear message within 3 s",
        "no request counted, the client's error text",
        proofs=(
            "test_a_client_without_keys_gets_a_sentence",
            "test_a_wrong_key_of_the_server_gets_a_sentence",
            "test_another_process_without_the_secret_gets_nothing",
        ),
    ),
    Row(
        "F14",
        "security",
        "valid keys that are not on the list",
        "refused; the server fails closed where its gatekeeper is dead",
        "the server does not start, or lets nobody in",
        proofs=(
            "test_a_key_that_is_not_on_the_list_gets_a_sentence_with_the_cure",
            "test_a_server_does_not_start_where_nobody_answers_for_keys",
            "test_while_nobody_answers_for_keys_nobody_gets_in",
        ),
    ),
    Row(
        "F15",
        "security",
        "oversized frames, garbage, 10 000 tiny parts, deep nesting, wrong types",
        "dropped, counted, disconnected; memory is bounded",
        "less than 200 MB more memory, others are not affected",
        proofs=("test_hostile_peers_are_cut_counted_and_bounded_and_nobody_else_notices",),
    ),
    Row(
        "F16",
        "security",
        "a request that is sent again by a recorder, or out of order",
        "ignored",
        "no second job",
        proofs=(
            "test_a_submit_that_is_played_back_makes_no_second_job",
            "test_requests_out_of_order_make_no_second_job",
        ),
    ),
    Row(
        "F17",
        "security",
        "a checkpoint that is a pickle, holds code, or has another digest",
        "refused: safetensors with their SHA-256; pickles without running anything in them",
        "the file that the code would make is never made",
        proofs=(
            "test_a_pickle_that_would_run_something_is_not_opened",
            "test_a_file_that_changed_since_it_was_verified_is_refused_by_name",
        ),
    ),
    Row(
        "F18",
        "security",
        "a config that asks for kernels of a hub or for remote code",
        "refused unless an operator allows it",
        "no call to the network",
        proofs=(
            "test_a_tokenizer_of_its_own_code_is_refused_and_nothing_is_fetched",
            "test_a_clip_that_asks_for_code_or_kernels_gets_neither",
        ),
    ),
    Row(
        "F19",
        "transport",
        "SIGKILL of the server in the middle of an upload",
        "the client comes back and goes on from the last chunk that arrived",
        "no more is sent twice than the credit and one frame",
        proofs=(
            "test_after_a_kill_in_an_upload_no_more_is_sent_twice_than_the_credit_and_a_frame",
        ),
    ),
    Row(
        "F20",
        "transport",
        "SIGKILL of the client while results arrive",
        "the server keeps the result, another client attaches by the job's id",
        "the result's digests are the same, no memory is left behind",
        proofs=(
            "test_when_the_client_is_killed_while_layers_arrive_another_gets_the_same_bits",
            "test_of_clients_that_died_no_memory_is_left",
        ),
    ),
    Row(
        "F21",
        "transport",
        "a link that drops, is half open, stalls for 30 s, or is forgotten by a router",
        "found by heartbeats, and the job goes on",
        "found within 5 s, no second job",
        proofs=(
            "test_a_link_that_is_gone_is_found_out_and_made_again_within_five_seconds",
            "test_a_line_that_stalls_is_found_out",
        ),
    ),
    Row(
        "F22",
        "transport",
        "a client that does not read",
        "back-pressure: the server's memory is bounded by the credit, the worker never waits",
        "less memory than the credit and 10 %",
        proofs=(
            "test_for_a_client_that_does_not_read_the_server_holds_no_more_than_its_credit",
            "test_a_job_runs_to_its_end_while_its_client_sleeps",
        ),
    ),
    Row(
        "F23",
        "transport",
        "latency, jitter, little bandwidth, 1 % of the chunks lost",
        "slower, and right",
        "the same digests, no hang",
        proofs=(
            "test_over_a_bad_line_the_same_bits_arrive_later",
            "test_when_one_chunk_in_a_hundred_is_lost_the_same_bits_arrive",
        ),
    ),
    Row(
        "F24",
        "transport",
        "50 clients, and one that floods",
        "fair shares and quotas",
        "95 % of submits are answered within 200 ms, the flood is throttled",
        proofs=(
            "test_of_fifty_clients_at_once_each_is_answered_within_200_ms_and_gets_its_jobs",
            "test_fifty_clients_are_answered_at_once_while_another_floods",
        ),
    ),
    Row(
        "F25",
        "transport",
        "an older or a newer client",
        "agreed upon, or refused with what to install",
        "a typed error, unknown fields ignored",
        proofs=(
            "test_a_client_of_another_major_version_is_told_both",
            "test_fields_that_a_newer_client_adds_are_passed_over",
        ),
    ),
    Row(
        "F26",
        "job",
        "a job submitted twice: a double click, a lost answer",
        "the same key is the same job",
        "it runs once, both get the result",
        proofs=("test_a_submit_whose_answer_was_lost_and_a_double_click_are_one_job_for_all",),
    ),
    Row(
        "F27",
        "job",
        "cancelled while queued, in a step, while decoding, while weights load",
        "cancelled, the device free",
        "queued 100 ms, in a step the step and 0.5 s, by force 5 s",
        proofs=(
            "test_a_queued_job_is_cancelled_at_once",
            "test_a_running_job_is_cancelled_within_a_step_and_half_a_second",
            "test_a_job_that_does_not_listen_has_ended_within_5_s",
        ),
    ),
    Row(
        "F28",
        "job",
        "the worker dies in the middle: SIGSEGV, abort, os._exit",
        "that worker alone starts again, the job is retried, then failed with its last words",
        "the server never goes, the worker is back within 3 s, retries are counted",
        proofs=(
            "test_a_worker_that_crashes_is_started_again_and_its_job_runs_once_more",
            "test_a_worker_that_crashed_is_there_again_within_3_s",
        ),
    ),
    Row(
        "F29",
        "job",
        "the worker hangs",
        "ended after the limit without progress",
        "within a second of the limit",
        proofs=("test_a_worker_that_hangs_is_killed_at_the_limit_and_its_job_put_away",),
    ),
    Row(
        "F30",
        "job",
        "a job that kills every worker",
        "quarantined, the queue goes on",
        "the next job starts, exactly as many tries as set",
        proofs=("test_a_job_that_always_crashes_is_put_away_after_n_tries_and_the_queue_goes_on",),
    ),
    Row(
        "F31",
        "job",
        "the server dies with queued, running and finished jobs",
        "the queue is there again, what ran goes on, what was done can be fetched",
        "none lost, none doubled, the table's integrity check is ok",
        proofs=(
            "test_of_two_hundred_random_kills_none_loses_or_doubles_a_job",
            "test_a_killed_server_accepts_and_queues_within_3_s",
        ),
    ),
    Row(
        "F32",
        "job",
        "one pass of several, or one window of several, fails",
        "finished ones are kept, the failed one alone runs again",
        "no more than one pass is computed again",
        proofs=(
            "test_when_the_third_of_four_passes_fails",
            "test_when_a_pass_fails_then_the_job_again_computes_no_window_twice",
        ),
    ),
    Row(
        "F33",
        "resources",
        "memory runs out while loading, in a step, while decoding",
        "one more try in a cheaper plan, said; else a new process",
        "the next job is done, memory is back within 2 %",
        proofs=(
            "test_a_cheaper_plan_is_tried_once_and_told",
            "test_after_a_job_ran_out_of_memory_another_process_has_the_next_and_holds_no_more",
        ),
    ),
    Row(
        "F34",
        "resources",
        "memory creeps over 200 jobs",
        "the worker is renewed by rule",
        "less than 1 MB a job",
        proofs=(
            "test_three_clients_share_four_workers",
            "test_a_worker_is_replaced_after_so_many_jobs_or_so_much_growth",
        ),
    ),
    Row(
        "F35",
        "resources",
        "the disk fills while a result, the table or a stage is written",
        "failed with that sentence or paused, nothing half-written visible, the table whole",
        "only temporary files go, it goes on when there is room",
        proofs=(
            "test_on_a_full_disk_a_job_waits_and_goes_on_when_there_is_room",
            "test_what_a_real_limit_on_files_stops_goes_on_when_it_is_lifted",
        ),
    ),
    Row(
        "F36",
        "resources",
        "read-only, no permission, a stale handle, an error of the disk",
        "a typed error that names the path, retried by rule",
        "no half-written sequence",
        proofs=(
            "test_a_disk_that_fails_for_good_fails_the_job_by_name_and_leaves_no_half_sequence",
            "test_a_share_that_was_away_for_a_moment_is_asked_again",
        ),
    ),
    Row(
        "F37",
        "resources",
        "no file descriptors, threads, shared memory or temporary room",
        "new jobs are refused, and taken again later",
        "the server answers meanwhile",
        proofs=(
            "test_without_descriptors_questions_are_answered_and_jobs_refused_until_there_are_some",
        ),
    ),
    Row(
        "F38",
        "resources",
        "a clip that no memory holds: 8k x 8k x 1000 frames",
        "refused by the estimate before anything is sent, with gigabytes and minutes",
        "within 100 ms",
        proofs=(
            "test_a_clip_too_large_is_refused_before_a_picture_of_it_travels",
            "test_a_clip_too_large_for_main_memory_is_refused_in_gb_within_100_ms",
        ),
    ),
    Row(
        "F39",
        "output",
        "a crash between frames of a sequence",
        "each frame is renamed into place, the manifest is last",
        "every visible EXR decodes, a manifest only where all is there",
        proofs=("test_of_a_sequence_whose_writer_is_killed_every_visible_frame_is_whole[200]",),
    ),
    Row(
        "F40",
        "output",
        "alpha outside 0 to 1, layers that do not give the plate back, a colour shift",
        "the check of the result says so",
        "PSNR and difference are shown, the flag is set",
        proofs=(
            "test_a_result_is_checked_and_what_differs_from_the_plate_is_said",
            "test_a_colour_shift_too_small_to_see_as_noise_is_told",
            "test_an_alpha_outside_zero_and_one",
        ),
    ),
    Row(
        "F41",
        "output",
        "the same seed twice, after a retry, after going on",
        "the same bits on the same device by the same plan, else a stated tolerance",
        "equal digests",
        proofs=(
            "test_when_a_job_runs_twice_from_nothing_then_the_bits_are_equal",
            "test_of_two_hundred_random_kills",
        ),
    ),
    Row(
        "F42",
        "time",
        "the clock jumps: daylight saving, NTP, suspend",
        "monotonic clocks alone decide",
        "nobody is taken for dead",
        proofs=(
            "test_a_jump_of_any_clock_drops_nobody_and_ends_no_job",
            "test_nobody_times_anything_by_the_time_of_day",
        ),
    ),
    Row(
        "F43",
        "nuke",
        "Nuke closes, the script is saved meanwhile, the node is deleted, copied, renamed",
        "a job belongs to its id, not to a node's name; its result is offered again",
        "no orphan, no import into another node",
        proofs=(
            "test_after_a_nuke_was_killed_in_the_midst_another_gets_the_result",
            "test_a_node_that_is_renamed_meanwhile",
            "test_a_copy_made_while_the_job_runs",
            "test_a_node_that_is_deleted_meanwhile",
        ),
    ),
    Row(
        "F44",
        "nuke",
        "called from another thread, while rendering, by -t, without a server",
        "the interface is never held up, a clear message",
        "no stall of 50 ms",
        proofs=(
            "test_no_call_holds_the_main_thread_for_50_ms",
            "test_when_no_server_can_be_had",
            "test_nothing_of_ours_touches_nuke_from_another_thread",
            "test_the_button_does_the_same_in_a_terminal_session",
        ),
    ),
    Row(
        "F45",
        "ops",
        "SIGTERM while it works",
        "a checkpoint and leaving within the notice, the job is queued again",
        "no more than a step or a window is lost",
        proofs=("test_sigterm_during_work_leaves_within_the_notice_and_loses_at_most_a_step",),
    ),
    Row(
        "F46",
        "ops",
        "no room for the log, nobody takes metrics, control characters in prompts",
        "work goes on, logs are escaped",
        "the job is done, one line an event",
        proofs=(
            "test_on_a_full_disk_for_logs_a_job_runs_to_its_end_and_the_lines_are_counted",
            "test_json_is_one_map_a_line_with_everything_escaped",
        ),
    ),
)
