"""Benchmarks of short videos: first examples, what is finally asked, and mistakes in files, from miniatures in the published formats."""

import pytest

from olmo.data.families.benchmarks import MVBENCH_FOLDERS, TOMATO_KINDS
from olmo.data.load_video import VideoLoader
from olmo.data.video_reader import VideoReaderConfig
from olmo.preprocessing.frame_sampling import TimeSampler
from tests.data.families.asking import asked, raises, told, wordings
from tests.data.families.fixtures import example, open_split
from tests.data.test_frame_folder import write_frames

S1, MC, OE = "video_eval_multiple_choice", "video_multiple_choice", "video_short_answer"


# -- MVBench


def mvbench(files, task="action_antonym", **changes):
    entry = {"video": "166583.webm", "question": "What is done?", "candidates": ["Nothing.", "Lifting up.", "Dropping."]}
    entry |= {"answer": "Lifting up."}
    for name in MVBENCH_FOLDERS:
        files.json(f"json/{name}.json", [entry | changes if name == task else entry])
    files.touch("video/data0613/star/Charades_v1_480/166583.webm")


def test_mvbench(miniature):
    mvbench(miniature("MVBench"))
    assert example("mvbench", "validation") == {
        "video": "video/ssv2_video/166583.webm",
        "question": (
            "What is done?\nA. Nothing.\nB. Lifting up.\nC. Dropping.\nPlease respond with only the letter of the correct answer."
        ),
        "answer": "B.",
        "style": S1,
        "metadata": {
            "example_id": "action_antonym_0",
            "task_type": "action_antonym",
            "prefix": "ssv2_video",
            "video_path": "ssv2_video/166583.webm",
        },
    }
    assert len(open_split("mvbench", "validation")) == 20
    assert asked("mvbench", "validation") == (
        "What is done?\nA. Nothing.\nB. Lifting up.\nC. Dropping.\nPlease respond with only the letter of the correct answer."
    )
    assert told("mvbench", "validation")["answer"] == "B."


def test_mvbench_times_are_a_clip(miniature):
    """Frames of TVQA are a folder, which the reader of videos reads: 9 to 15 of 3 per second for 3 to 5 s."""
    files = miniature("MVBench")
    mvbench(files, task="episodic_reasoning", video="castle_s01e02_seg02_clip_00", start=3, end="5.0", fps=3)
    number = sorted(MVBENCH_FOLDERS).index("episodic_reasoning")
    found = example("mvbench", "validation", number)
    assert found["video"] == "video/tvqa/frames_fps3_hq/castle_s01e02_seg02_clip_00"
    clip = (found["metadata"]["clip_start_time"], found["metadata"]["clip_end_time"])
    assert clip == (3, 5)
    write_frames(files.folder / found["video"], range(1, 31))
    loader, sampler = VideoLoader(VideoReaderConfig(backend="pyav")), TimeSampler(8, "uniform_last_frame", max_fps=[1.0])
    assert loader(str(files.folder / found["video"]), sampler, clip=clip).timestamps.tolist() == [0, 1, 2]


def test_mvbench_videos_that_were_published_later(miniature):
    mvbench(miniature("MVBench"))
    number = sorted(MVBENCH_FOLDERS).index("action_sequence")
    found = example("mvbench", "validation", number)
    assert found["video"] == "video/data0613/star/Charades_v1_480/166583.webm"
    assert found["metadata"]["prefix"] == "star/Charades_v1_480"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "Flying."}, "json/action_antonym.json, entry 0: 'answer' is none of the options: 'Flying.'"),
        ({"candidates": None}, "json/action_antonym.json, entry 0: the key 'candidates' is missing; there is video, question"),
        ({"candidates": ["Nothing.", [2]]}, r"entry 0: 'candidates\[1\]' should be text, but is \[2\]"),
        ({"start": 5.0}, "json/action_antonym.json, entry 0: the key 'end' is missing"),
        ({"start": 5.0, "end": 5.0}, "entry 0: 'start' and 'end' should be seconds in that order, but are 5 and 5"),
    ],
)
def test_mvbench_mistakes(miniature, changes, sentence):
    mvbench(miniature("MVBench"), **changes)
    raises(sentence, "mvbench", "validation")


# -- TOMATO


def tomato(files, **changes):
    entry = {
        "question": "Which instrument plays first?",
        "options": ["Cello.", "Flute.", "Both."],
        "answer": 1,
        "video_source_url": "",
        "motion_type": "visual cues",
        "variation": {"counterfactual": 0, "composite": 0, "zoom": 0, "first_person": 0},
        "demonstration_type": "object",
        "note": "",
        "key": "0731-00",
    }
    for kind in TOMATO_KINDS:
        files.json(f"data/{kind}.json", {"0": entry | changes, "1": entry})


def test_tomato(miniature):
    tomato(miniature("TOMATO"))
    assert example("tomato", "test") == {
        "video": "videos/object/0731-00.mp4",
        "question": "Which instrument plays first?",
        "options": ["Cello.", "Flute.", "Both."],
        "answer_idx": 1,
        "style": MC,
        "metadata": {
            "example_id": "count_0",
            "key": "0731-00",
            "reasoning_type": "count",
            "demonstration_type": "object",
            "motion_type": "visual cues",
        },
    }
    assert len(open_split("tomato", "test")) == 12
    assert example("tomato", "test", 7)["metadata"]["reasoning_type"] == "shape&trend"
    assert asked("tomato", "test") == (
        "Which instrument plays first?\nOnly return the correct answer option.\nA. Cello.\nB. Flute.\nC. Both."
    )
    assert told("tomato", "test")["option_names"] == "ABC" and told("tomato", "test")["answer_idx"] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": 3}, "data/count.json, 0: 'answer' is option 3, but there are 3, counted from 0"),
        ({"answer": "first"}, "data/count.json, 0: 'answer' should be a whole number, but is \"first\""),
        ({"options": "Cello."}, "data/count.json, 0: 'options' should be a list, but is \"Cello.\""),
        ({"key": None}, "data/count.json, 0: the key 'key' is missing"),
    ],
)
def test_tomato_mistakes(miniature, changes, sentence):
    tomato(miniature("TOMATO"), **changes)
    raises(sentence, "tomato", "test")


def test_tomato_as_a_list(miniature):
    files = miniature("TOMATO")
    tomato(files)
    files.json("data/rotation.json", [])
    raises("data/rotation.json should be a mapping from numbers to questions", "tomato", "test")


# -- MotionBench


def motionbench(files, qa=(), **changes):
    answered = {"uid": "u1", "start": 0, "end": 3, "question": "How does it move?\nA. Up\nB. Down", "answer": "B"}
    line = {
        "key": "ef47_58_59",
        "question_type": "Motion Recognition",
        "video_type": "public",
        "video_path": "ef47_58_59.mp4",
        "video_info": {"fps": 25.0, "duration": 3.0},
        "qa": [answered, *qa],
    }
    kept = {"uid": "u2", "question": "How often?\nA. Once\nB. Twice", "answer": "NA"}
    own = line | {"video_path": "own.mp4", "key": "own", "qa": [kept]}
    files.jsonl("MotionBench/video_info.meta.jsonl", [line | changes, own])
    files.touch("MotionBench/self-collected/own.mp4")


def test_motionbench(miniature):
    """The question is asked as it stands; answers that the publisher keeps are left out of validation, not of test."""
    motionbench(miniature("MotionBench"))
    assert example("motionbench", "validation") == {
        "video": "MotionBench/public-dataset/ef47_58_59.mp4",
        "question": "How does it move?\nA. Up\nB. Down",
        "answer": "B",
        "style": S1,
        "metadata": {
            "example_id": "u1",
            "qa_uid": "u1",
            "video_info": {"fps": 25.0, "duration": 3.0},
            "task_type": "Motion Recognition",
            "video_type": "public",
        },
    }
    assert len(open_split("motionbench", "validation")) == 1 and len(open_split("motionbench_test")) == 2
    assert asked("motionbench", "validation") == "How does it move?\nA. Up\nB. Down"
    kept = example("motionbench", "test", 1)
    assert kept["video"] == "MotionBench/self-collected/own.mp4" and "answer" not in kept
    assert asked("motionbench", "test", 1) == "How often?\nA. Once\nB. Twice" and "answer" not in told("motionbench", "test", 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"qa": [{"uid": "u2", "question": "q", "answer": "A"}]},
            "meta.jsonl, line 2, qa.0.: the uid 'u2' stands already at .*line 1, qa.1.",
        ),
        ({"qa": ["why"]}, r"meta.jsonl, line 1: 'qa\[1\]' should be a mapping, but is \"why\""),
        ({"qa": [{"uid": "u3", "question": "q"}]}, r"meta.jsonl, line 1, qa\[1\]: the key 'answer' is missing"),
        ({"qa": [{"question": "q", "answer": "A"}]}, r"meta.jsonl, line 1, qa\[1\]: the key 'uid' is missing; there is question, answer"),
        ({"video_type": 7}, "meta.jsonl, line 1: 'video_type' should be text, but is 7"),
    ],
)
def test_motionbench_mistakes(miniature, changes, sentence):
    motionbench(miniature("MotionBench"), **changes)
    raises(sentence, "motionbench", "test")


def test_motionbench_in_another_encoding(miniature):
    files = miniature("MotionBench")
    motionbench(files)
    path = files.text("MotionBench/video_info.meta.jsonl", "")
    path.write_bytes('\n{"key": "früh"}'.encode("latin-1"))
    raises("video_info.meta.jsonl, line 2: is not UTF-8 text", "motionbench", "test")


def test_motionbench_without_its_videos(miniature):
    """Which folder has a video is looked up when the index is made."""
    files = miniature("MotionBench")
    files.jsonl("MotionBench/video_info.meta.jsonl", [])
    raises("MotionBench/self-collected is not in", "motionbench", "validation")


# -- EgoSchema

EGO_OPTIONS = [f"{letter}. C does {thing}" for letter, thing in zip("ABCDE", ("this", "that", "more", "less", "nothing"), strict=True)]


def ego_schema(files, number=2, **changes):
    row = {"question_idx": "q0", "question": "What does C do?", "video_idx": "0074f737", "option": EGO_OPTIONS, "answer": "3"}
    files.parquet("Subset/test-00000-of-00001.parquet", [row | changes])
    rows = [row | {"question_idx": f"q{i}", "answer": None} for i in range(number)]
    files.parquet("MC/test-00000-of-00001.parquet", rows)


def test_ego_schema(miniature):
    ego_schema(miniature("EgoSchema"))
    question = "\n".join(["What does C do?", *EGO_OPTIONS, "Answer with the option's letter from the given choices directly."])
    known = {"example_id": "q0", "question_id": "q0", "video_id": "0074f737", "options": EGO_OPTIONS}
    shared = {"video": "videos/0074f737.mp4", "question": question, "style": S1}
    assert example("ego_schema", "validation") == shared | {"answer": "D", "metadata": known | {"answer_idx": "3"}}
    assert example("ego_schema_test") == shared | {"metadata": known}
    assert len(open_split("ego_schema", "validation")) == 1 and len(open_split("ego_schema", "test")) == 2
    assert asked("ego_schema", "validation") == (
        "What does C do?\nA. C does this\nB. C does that\nC. C does more\nD. C does less\nE. C does nothing\n"
        "Answer with the option's letter from the given choices directly."
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "5"}, "Subset/test-00000-of-00001.parquet, row 0: 'answer' is option 5, but there are 5, counted from 0"),
        ({"answer": None}, "Subset/test-00000-of-00001.parquet, row 0: the key 'answer' is missing"),
        ({"video_idx": 12}, "Subset/test-00000-of-00001.parquet, row 0: 'video_idx' should be text, but is 12"),
        ({"option": EGO_OPTIONS[:1]}, "row 0: 'option' should have two options or more, but has 1"),
    ],
)
def test_ego_schema_mistakes(miniature, changes, sentence):
    ego_schema(miniature("EgoSchema"), **changes)
    raises(sentence, "ego_schema", "validation")


def test_ego_schema_twice(miniature):
    files = miniature("EgoSchema")
    row = {"question_idx": "q0", "question": "q", "video_idx": "v", "option": EGO_OPTIONS, "answer": "3"}
    files.parquet("Subset/test-00000-of-00001.parquet", [row, row])
    raises("row 1: the question_idx 'q0' stands already at .*row 0", "ego_schema", "validation")


# -- TemporalBench

CAPTIONS = "Which caption best describes this video?\nA. He tosses it up. \nB. He eats it."
REQUEST = "Answer with the option's letter from the given choices directly."


def temporal_bench(files, **changes):
    video = "short_video/Charades/EEVD3.mp4"
    entry = {"idx": f"{video}_0", "video_name": video, "category": "Action Effector", "dataset": "Charades"}
    entry |= {"question": f"{CAPTIONS}\n{REQUEST}", "GT": "B"}
    files.json("temporalbench_short_qa.json", [entry | changes, entry | {"idx": f"{video}_1"}])
    files.json("temporalbench_long_qa.json", [entry | {"idx": "long_video/x.mp4_0", "video_name": "long_video/x.mp4"}])


def test_temporal_bench(miniature):
    """Asked as it stands among the words of a short answer, or with its options in the standard form."""
    temporal_bench(miniature("TemporalBench"))
    metadata = {"example_id": "long_video/x.mp4_0", "type": "long_qa", "video": "long_video/x.mp4"}
    assert example("temporal_bench", "test") == {
        "video": "long_video/x.mp4",
        "question": f"{CAPTIONS}\n{REQUEST}",
        "answer": "B",
        "style": OE,
        "metadata": metadata,
    }
    assert example("temporal_bench_mc", "test") == {
        "video": "long_video/x.mp4",
        "question": "Which caption best describes this video?",
        "options": ["He tosses it up.", "He eats it."],
        "answer_idx": 1,
        "style": MC,
        "metadata": metadata,
    }
    assert len(open_split("temporal_bench", "test")) == len(open_split("temporal_bench_mc", "test")) == 3
    assert example("temporal_bench", "test", 1)["metadata"]["type"] == "short_qa"
    possible = {f"video_short_answer: {w}" for w in wordings("short_answer", question=f"{CAPTIONS}\n{REQUEST}")}
    found = {asked("temporal_bench", "test", seed=seed) for seed in range(60)}
    assert found <= possible and len(found) > 5
    assert asked("temporal_bench_mc", "test") == (
        "Which caption best describes this video?\nOnly return the correct answer option.\nA. He tosses it up.\nB. He eats it."
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"GT": "C"}, "temporalbench_short_qa.json, entry 0: 'GT' should be one of the letters A to B, but is 'C'"),
        ({"question": "Why?"}, "temporalbench_short_qa.json, entry 0: its question should have options A and B in lines of their own"),
        ({"idx": "short_video/Charades/EEVD3.mp4_1"}, "entry 1: the idx 'short_video/Charades/EEVD3.mp4_1' stands already at"),
        ({"video_name": None}, "temporalbench_short_qa.json, entry 0: the key 'video_name' is missing"),
    ],
)
def test_temporal_bench_mistakes(miniature, changes, sentence):
    temporal_bench(miniature("TemporalBench"), **changes)
    raises(sentence, "temporal_bench", "test")
