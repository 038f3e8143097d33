"""When something happens in a video: the first example of every split, from miniatures in the published formats."""

import pytest

from tests.data.families.checks import refused, said
from tests.data.families.fixtures import example, open_split

OE = "video_short_answer"

# -- Ego4D

MOMENTS = "v2/annotations/moments_train.json"
QUERIES = "v2/annotations/nlq_train.json"


def label(start, end, name, primary=True, **more):
    event = {"start_time": start, "end_time": end, "label": name, "primary": primary}
    return event | {"start_frame": 0, "end_frame": 9, "video_start_time": start + 100, "video_end_time": end + 100} | more


def query(start, end, text="Where did I put the knife?", **more):
    asked = {"clip_start_sec": start, "clip_end_sec": end, "video_start_sec": start + 100, "video_end_sec": end + 100}
    return asked | {"template": "Objects: Where is object X?", "query": text} | more


def by_clip(key, clips):
    """Ego4D's layout: videos, their clips, and every person's annotations of a clip."""
    found = []
    for clip, people in clips.items():
        annotations = [{"annotator_uid": str(i), key: list(part)} for i, part in enumerate(people)]
        found.append({"clip_uid": clip, "video_start_sec": 100.0, "video_end_sec": 580.0, "annotations": annotations})
    return {"version": "2.0", "videos": [{"video_uid": "v-1", "split": "train", "clips": found}]}


def ego4d(files, split="train", events=None, asked=None):
    events = {"c-1": [[label(7.0, 9.5, "use_phone")]]} if events is None else events
    asked = {"c-1": [[query(1.0, 2.5)]]} if asked is None else asked
    files.json(f"v2/annotations/moments_{split}.json", by_clip("labels", events))
    files.json(f"v2/annotations/nlq_{split}.json", by_clip("language_queries", asked))


@pytest.mark.parametrize("split", ["train", "val"])
def test_ego4d(miniature, split, caplog):
    """Events are asked about as parts of a clip, by their times and by their label; what two people marked alike counts once."""
    people = [
        [label(30.0, 41.256, "use_phone"), label(2.0, 5.0, "read_a_book"), label(1.0, 3.0, "cut_grass", primary=False)],
        [label(7.0, 9.5, "use_phone"), label(2.0, 5.0, "read_a_book"), label(3.0, 3.0, "stand")],
    ]
    asked = {"c-2": [[query(4.0, 6.0, "What did I buy?")]], "c-1": [[query(1.0, 2.5), query(1.0, 2.5, None), query(9.0, 9.0)]]}
    ego4d(miniature("ego4d"), split, {"c-1": people}, asked)
    found = [example("ego4d_all", split, i) for i in range(len(open_split("ego4d_all", split)))]
    assert found[0] == {
        "video": "v2/clips/c-1.mp4",
        "message_list": [{"question": "Label the clip.", "answer": "read_a_book", "style": "ego4d_mq_label_clip"}],
        "metadata": {"clip_start_time": 2.0, "clip_end_time": 5.0},
    }
    assert [f["metadata"]["clip_start_time"] for f in found[:3]] == [2.0, 7.0, 30.0]
    assert found[3] == {
        "video": "v2/clips/c-1.mp4",
        "message_list": [
            {"question": "Label the segment from 2.00 to 5.00.", "answer": "read_a_book", "style": "ego4d_mq_label_start_end"},
            {"question": "Label the segment from 7.00 to 9.50.", "answer": "use_phone", "style": "ego4d_mq_label_start_end"},
            {"question": "Label the segment from 30.00 to 41.26.", "answer": "use_phone", "style": "ego4d_mq_label_start_end"},
            {
                "question": "Localize the event read_a_book in the video.",
                "answer": "2.00 - 5.00",
                "style": "ego4d_mq_temporal_grounding",
            },
            {
                "question": "Localize the event use_phone in the video.",
                "answer": "7.00 - 9.50\n30.00 - 41.26",
                "style": "ego4d_mq_temporal_grounding",
            },
            {"question": "Where did I put the knife?", "answer": "Start: 1.00, end: 2.50", "style": "ego4d_nlq_temporal_grounding"},
        ],
    }
    assert found[4]["video"] == "v2/clips/c-2.mp4" and len(found[4]["message_list"]) == 1 and len(found) == 5
    assert "left out: 2 spans that do not end after they start" in caplog.text and "left out: 1 queries without words" in caplog.text


def test_the_test_of_ego4d_has_no_answers(miniature):
    files = miniature("ego4d")
    files.json("v2/annotations/moments_test_unannotated.json", by_clip("labels", {}))
    unanswered = {k: v for k, v in query(1.0, 2.0).items() if not k.endswith("_sec")}
    files.json("v2/annotations/nlq_test_unannotated.json", by_clip("language_queries", {"c-9": [[unanswered]]}))
    assert example("ego4d_all", "test") == {
        "video": "v2/clips/c-9.mp4",
        "message_list": [{"question": "Where did I put the knife?", "style": "ego4d_nlq_temporal_grounding"}],
    }
    assert len(open_split("ego4d_all", "test")) == 1


def test_ego4d_as_prompts(miniature):
    """The style stands before the question as it is."""
    ego4d(miniature("ego4d"))
    assert said(example("ego4d_all")) == [("ego4d_mq_label_clip: Label the clip.", "use_phone")]
    assert said(example("ego4d_all", index=1)) == [
        ("ego4d_mq_label_start_end: Label the segment from 7.00 to 9.50.", "use_phone"),
        ("ego4d_mq_temporal_grounding: Localize the event use_phone in the video.", "7.00 - 9.50"),
        ("ego4d_nlq_temporal_grounding: Where did I put the knife?", "Start: 1.00, end: 2.50"),
    ]


@pytest.mark.parametrize(
    ("event", "asked", "sentence"),
    [
        ({"label": None}, {}, f"{MOMENTS}, videos[0], clips[0], annotations[0], labels[0]: the key 'label' is missing"),
        ({"primary": "yes"}, {}, "labels[0]: 'primary' should be true or false, but is \"yes\""),
        ({"start_time": "soon"}, {}, "labels[0]: 'start_time' should be a number, but is \"soon\""),
        (
            {},
            {"clip_end_sec": None},
            f"{QUERIES}, videos[0], clips[0], annotations[0], language_queries[0]: the key 'clip_end_sec' is",
        ),
        ({}, {"query": 3}, "language_queries[0]: 'query' should be text, but is 3"),
    ],
)
def test_ego4d_with_something_wrong(miniature, event, asked, sentence):
    ego4d(miniature("ego4d"), events={"c": [[label(1, 2, "x", **event)]]}, asked={"c": [[query(1, 2, **asked)]]})
    refused("ego4d_all", sentence)


def test_ego4d_in_another_layout(miniature):
    files = miniature("ego4d")
    ego4d(files)
    files.json(MOMENTS, [])
    refused("ego4d_all", f"{MOMENTS} should be a mapping with the list 'videos'")
    files.json(MOMENTS, {"videos": [{"video_uid": "v", "clips": [7]}]})
    refused("ego4d_all", f"{MOMENTS}, videos[0]: 'clips[0]' should be a mapping, but is 7")


# -- QVHighlights


def qv(number, windows=((0, 16),), **changes):
    row = {"qid": number, "query": "A family is playing basketball", "duration": 126, "vid": "bP5KfdFJzC4_660.0_810.0"}
    row |= {"relevant_windows": [list(w) for w in windows], "relevant_clip_ids": [0, 1], "saliency_scores": [[4, 1, 1], [4, 4, 4]]}
    return {k: v for k, v in (row | changes).items() if v is not None}


QV_FILES = {"train": "highlight_train_release.jsonl", "validation": "highlight_val_release.jsonl"}
QUESTION = "Here is a query: A family is playing basketball. Where are all the segments for the query? Report the segments in seconds."


@pytest.mark.parametrize("split", ["train", "validation"])
def test_qv_highlights(miniature, split):
    """One query is one example, unless it has more than five windows."""
    six = [(10 * i, 10 * i + 2) for i in range(6)]
    files = miniature("QVHighlights")
    files.jsonl(QV_FILES[split], [qv(8737, ((0, 16), (82, 150))), qv(1, six), qv(2, six[:5])])
    files.touch("videos/bP5KfdFJzC4_660.0_810.0.mp4")
    found = example("qv_highlights", split)
    assert found == {
        "video": "videos/bP5KfdFJzC4_660.0_810.0.mp4",
        "question": QUESTION,
        "answer": "Segments: [0-16], [82-150]",
        "style": OE,
        "metadata": {"example_id": 8737, "relevant_windows": [[0, 16], [82, 150]], "scaled_avg_scores": [0.5, 1.0]},
    }
    assert len(open_split("qv_highlights", split)) == 2
    for seed in range(10):
        ((request, answer),) = said(found, seed)
        assert request.startswith("video_short_answer: ") and QUESTION in request and answer == "Segments: [0-16], [82-150]"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"relevant_windows": [[16, 0]]}, "line 2: 'relevant_windows[0]' should be [start, end] in seconds, but is [16, 0]"),
        ({"relevant_windows": [[0, 1], 7]}, "line 2: 'relevant_windows[1]' should be [start, end] in seconds, but is 7"),
        ({"relevant_windows": []}, "line 2: 'relevant_windows' is empty; there should be at least one window"),
        ({"relevant_windows": None}, "highlight_train_release.jsonl, line 2: the key 'relevant_windows' is missing; there is qid, query"),
        ({"saliency_scores": [[4, 5, 1]]}, "line 2: 'saliency_scores[0]' should be scores from 0 to 4, but is [4, 5, 1]"),
        ({"query": 4}, "line 2: 'query' should be text, but is 4"),
        ({"qid": 1}, "line 2: the qid 1 stands already at "),
        ({"qid": None}, "line 2: the key 'qid' is missing"),
    ],
)
def test_qv_highlights_with_something_wrong(miniature, changes, sentence):
    files = miniature("QVHighlights")
    files.jsonl("highlight_train_release.jsonl", [qv(1), qv(2, **changes)])
    files.touch("videos/bP5KfdFJzC4_660.0_810.0.mp4")
    refused("qv_highlights", sentence)
