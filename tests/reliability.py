"""Which test holds which promise of reliability, and with which mistake it was seen to fail.

`python -m tests.reliability` prints the tests' names, for pytest; with `--markdown` the table of docs/reliability.md.
"""

import argparse
from dataclasses import dataclass

GPU = "a GPU, not run here"


@dataclass(frozen=True)
class Promise:
    """One entry of the catalogue."""

    name: str
    """R1 to R24."""
    what: str
    criterion: str
    tests: tuple[str, ...] = ()
    """FILE::FUNCTION, all cases of it."""
    seen: str = ""
    """Mistakes that made it fail."""
    needs: str = "CPU"
    script: str | None = None
    """What is run instead, where tests cannot."""


RUN = "tests/train/test_run.py"
POINTS = "tests/train/test_resume_points.py"
KILLED = "tests/train/test_resume_killed.py"
RANKS = "tests/train/test_resume_world_size.py"
SAVES = "tests/train/test_save_faults.py"
DISTRIBUTED = "tests/train/test_distributed.py"
LOADER = "tests/data/test_loader.py"
PIPELINE = "tests/data/test_pipeline.py"
BACKBONE = "tests/nn/test_temporal_vision_backbone.py"
VIT = "tests/nn/test_temporal_image_vit.py"
PACKING = "tests/models/test_packing.py"
DAMAGE = "tests/checkpoints/test_damage.py"
STOPPING = "tests/train/test_stopping.py"
MEDIA = "tests/train/test_fault_media.py"

PROMISES = (
    Promise(
        "R1",
        "resume is exact, with pruning, packed rows and dropout",
        "6 steps, restart, 6 steps = 12 steps: losses, weights, optimiser, random state, data, bit for bit",
        (f"{POINTS}::test_resume_in_the_middle", f"{POINTS}::test_resume_needs_everything", f"{RUN}::test_resume_is_exact"),
        "random state, moments or the packer's pool not restored",
    ),
    Promise(
        "R2",
        "resume at awkward points",
        "as R1: examples in the pool, edge of an epoch, from an ephemeral checkpoint, after a bad clip",
        (
            f"{POINTS}::test_resume_at_awkward_points",
            f"{POINTS}::test_resume_from_an_ephemeral_checkpoint",
            f"{LOADER}::test_resume_is_exact",
            f"{LOADER}::test_resume_with_workers_leaves_the_random_state_alone",
        ),
        "examples that wait to be packed left out of the state; random numbers of training drawn by workers that start",
    ),
    Promise(
        "R3",
        "kill -9 of a process or of one of two ranks, in a step and in a save, on a disk and on S3",
        "newest whole checkpoint is taken, no partial one ever; same end as the run that nobody killed, bit for bit",
        (
            f"{KILLED}::test_resume_after_kill_of_one_of_two_ranks",
            f"{KILLED}::test_resume_after_kill_in_mid_save",
            f"{KILLED}::test_resume_on_s3_after_kill_in_mid_save",
        ),
        "the marker of an object store not looked at",
    ),
    Promise(
        "R4",
        "1, 2 and 4 ranks at the same global batch, fresh and as one run that changes its ranks",
        "same examples in the same order; same kept cells and losses (1e-6) in the first step, 1e-4 over 12 steps; float64: 1e-9",
        (
            f"{RANKS}::test_resume_on_more_ranks_sees_the_same_examples",
            f"{RANKS}::test_resume_on_more_ranks_keeps_the_same_cells",
            f"{RANKS}::test_resume_on_more_ranks_has_the_same_losses",
            f"{LOADER}::test_packed_global_batches_hold_the_same_rows_for_any_number_of_ranks",
            f"{LOADER}::test_packed_resume_on_another_number_of_ranks_is_exact",
        ),
        "every rank reading the rows of the first",
    ),
    Promise(
        "R5",
        "0, 1 and 4 data workers",
        "same examples, order and pixels",
        (f"{LOADER}::test_workers_change_nothing", f"{PIPELINE}::test_real_videos_are_packed_pruned_and_survive_a_broken_one"),
        "random generator of the worker instead of the example",
    ),
    Promise(
        "R6",
        "the same seed is the same run, another one is not",
        "20 steps bit for bit; other losses from the first step",
        (f"{POINTS}::test_the_same_seed_is_the_same_run", f"{POINTS}::test_another_seed_is_another_run"),
        "seed of weights or of data without effect; weights seeded by the clock",
    ),
    Promise(
        "R7",
        "golden losses of three configs over 100 steps",
        "exact with the same torch, CPU and threads, else the first 10 steps within 1e-5",
        ("tests/train/test_golden_losses.py::test_a_hundred_steps_are_as_they_were",),
        "two kept cells exchanged; budget rounded otherwise; initial weights 1.001 times as large; another order of the data",
    ),
    Promise(
        "R8",
        "packed examples are examples alone",
        "logits 1e-5, gradients 1e-4; a neighbour changes nothing, bit for bit",
        (f"{PACKING}::test_packed_and_batched_equal_alone", f"{PACKING}::test_a_neighbour_changes_nothing"),
        "refill of lone frames; example ids left out of the bidirectional rule",
    ),
    Promise(
        "R9",
        "pruned ViT against dense masks and loops",
        "float64 1e-9, fp32 1e-5, bf16 2e-2; packing inverts exactly",
        (
            f"{BACKBONE}::test_equals_slow_oracle",
            f"{BACKBONE}::test_flat_packing_equals_dense_masks",
            "tests/nn/test_token_packing.py::test_unpack_inverts_pack",
        ),
        "two kept patches exchanged",
    ),
    Promise(
        "R10",
        "pruning switched off is the unpruned model",
        "features, logits, loss and gradients bit for bit",
        (f"{PACKING}::test_pruning_off_is_molmo2_bit_for_bit", f"{BACKBONE}::test_off_is_the_plain_backbone_bit_for_bit"),
        "keep mask applied although nothing was dropped",
    ),
    Promise(
        "R11",
        "how many cells stay is known before the forward pass",
        "exact in 500 cases, first frame whole, equal scores leave in order",
        (
            f"{VIT}::test_kept_count_is_known_beforehand",
            f"{BACKBONE}::test_kept_count_is_exact",
            "tests/test_budget.py::test_known_budgets",
        ),
        "a budget of one more; ties broken towards later cells",
    ),
    Promise(
        "R12",
        "the scorer learns through the log-bias",
        "gradient > 0, and = 0 with a constant bias",
        (
            f"{BACKBONE}::test_scorer_learns_through_the_bias_alone",
            f"{PACKING}::test_scorer_learns_from_the_language_loss_and_from_its_own",
        ),
        "bias left out",
    ),
    Promise(
        "R13",
        "a Hugging Face export computes the same",
        "logits equal to the last bit, same answers (oldest and newest transformers: the script)",
        (
            "tests/convert/test_export.py::test_from_the_same_pixels_logits_are_equal_to_the_last_bit",
            "tests/convert/test_export.py::test_a_fresh_process_computes_the_same",
            "tests/convert/test_remote_code.py::test_greedy_generation",
        ),
        script="scripts/check_transformers_versions.py",
    ),
    Promise(
        "R14",
        "checkpoints with missing, unknown, misshapen or damaged parts, and older ones",
        "an error that names the key or the file; older ones are read",
        (
            f"{DAMAGE}::test_missing_extra_and_misshapen_keys_are_listed_together",
            f"{DAMAGE}::test_a_damaged_shard",
            "tests/checkpoints/test_marker.py::test_a_flipped_byte_names_the_file",
            "tests/train/test_faults.py::test_a_run_goes_on_from_its_last_whole_checkpoint",
            "tests/train/test_resume_older.py::test_resume_from_an_older_checkpoint",
            "tests/train/test_resume_older.py::test_fault_in_a_checkpoint_to_resume_from",
        ),
        "newest checkpoint taken without a look",
    ),
    Promise(
        "R15",
        "saving in the background",
        "what is saved is the step of the request; never two writers; a crash in a save costs that save only",
        (
            f"{SAVES}::test_resume_state_is_that_of_the_request",
            f"{SAVES}::test_resume_a_second_save_waits_for_the_first",
            f"{SAVES}::test_fault_runs_go_on_and_try_again",
            f"{SAVES}::test_fault_in_any_file",
            f"{KILLED}::test_resume_after_kill_in_mid_save",
        ),
        "live tensors written",
    ),
    Promise(
        "R16",
        "bad media: cut, empty, over-reported, no pictures, variable rate, turned; decoders that hang or crash",
        "skipped within 30 s, counted and named; more than 1 % end the run",
        (
            f"{MEDIA}::test_fault_of_a_clip_costs_that_clip",
            f"{MEDIA}::test_fault_of_one_clip_in_a_hundred_is_the_limit",
            "tests/train/test_faults.py::test_too_many_broken_videos_end_the_run",
            f"{MEDIA}::test_fault_of_a_clip_is_found_in_time",
            "tests/data/test_video_reader.py::test_shows_the_frame_of_each_moment",
            "tests/data/test_decode_process.py::test_a_native_fault_costs_one_clip",
            "tests/data/test_failures.py::test_fails_above_the_limit_with_the_list",
        ),
        "failures not counted",
    ),
    Promise(
        "R17",
        "2,000 clips through the loader and two workers",
        "memory grows by less than 5 % after the first 500, open files not at all",
        (
            "tests/data/test_loader_soak.py::test_loading_for_long_keeps_nothing",
            "tests/data/test_video_soak.py::test_reading_for_long_keeps_nothing",
        ),
        "20 kB kept per read; a file left open per read",
    ),
    Promise(
        "R18",
        "every documented command, and a dry run of every config",
        "exit status 0",
        ("tests/test_docs.py::test_every_command_is_checked", "tests/test_launchers.py::test_dry_run_of_every_named_config"),
    ),
    Promise(
        "R19",
        "ranks without a frame in their batch",
        "no rank waits for ever; gradients of one process",
        (f"{DISTRIBUTED}::test_two_ranks_equal_one_process", "tests/models/test_parallelize.py::test_two_ranks_equal_one_process"),
        "the backbone's empty pass left out (hangs)",
    ),
    Promise(
        "R20",
        "values that are no numbers",
        "skip or stop as configured; the batch is written down and can be replayed",
        (
            "tests/train/test_fault_nonfinite_runs.py::test_fault_a_bad_batch_is_skipped_and_replayed",
            "tests/train/test_nonfinite.py::test_a_skipped_step_changes_nothing_but_the_count",
            "tests/train/test_nonfinite.py::test_stop_names_the_step_and_the_examples",
        ),
        "optimiser called with gradients of zero; each rank deciding by its own loss; replay without the random state",
    ),
    Promise(
        "R21",
        "numerics against transformers' Molmo2 in bf16",
        "error against fp32 at most 1.1 times the library's",
        needs=GPU,
        script="scripts/compare_numerics.py",
    ),
    Promise(
        "R22",
        "sharded over 8 GPUs against one: only gloo ranks were tried",
        "first step 1e-6, 12 steps 1e-4 (8 GPUs: first step exact, step 20 within 1e-5)",
        (f"{DISTRIBUTED}::test_two_ranks_equal_one_process",),
        needs=f"8 x {GPU}",
    ),
    Promise(
        "R23",
        "speed guard: measured by hand, nothing compares with the stored file",
        "between -10 % and +20 % of the stored speed of the device",
        needs=GPU,
        script="scripts/benchmark.py",
    ),
    Promise(
        "R24",
        "SIGTERM and limits",
        "step finished, checkpoint written, documented exit status, resume continues exactly",
        (
            f"{STOPPING}::test_resume_until_finished",
            f"{STOPPING}::test_resume_after_a_fault_signal_to_the_whole_group",
            f"{RUN}::test_a_signal_saves_and_stops",
        ),
        "file of the start before left while training",
    ),
)


def markdown() -> str:
    """The table of the document: one line per promise."""
    lines = ["| | what | holds when | tests | seen to fail with |", "|---|---|---|---|---|"]
    for p in PROMISES:
        where = [f"`{t.removeprefix('tests/')}`" for t in p.tests] + ([] if p.script is None else [f"`{p.script}`"])
        needs = "" if p.needs == "CPU" else f" ({p.needs})"
        lines.append(f"| {p.name} | {p.what}{needs} | {p.criterion} | {'<br>'.join(where)} | {p.seen} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="the table instead of the tests' names")
    names = dict.fromkeys(t for p in PROMISES for t in p.tests)
    print(markdown() if parser.parse_args().markdown else "\n".join(names), end="\n")
