"""Questions about long videos with slow and fast frames, through the same calls as any other question.

The tiny model has frames of 9 x 9 patches: nine cells of a slow frame, a single one of a fast frame.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from olmo.data.load_video import VideoLoader
from olmo.eval.command import kept_tokens
from olmo.eval.questions import QuestionBatches, kept_per_frame, list_questions
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.inference import load
from olmo.inference.api import ExampleReader
from olmo.models.molmo2.preprocessor import build_preprocessor
from tests.inference.siglip import write_encoder

LIMITS = dict(mm_preprocessor__video__slow_fast__limits="[2,4,6,8]")
PERIODIC = dict(mm_preprocessor__video__slow_fast__mode="periodic", **LIMITS)
SPARSE = dict(mm_preprocessor__video__frame_sample_mode="uniform_last_frame", mm_preprocessor__video__max_fps="[1.0]")
"""Clips of four seconds at one frame a second: five frames, of which two are slow."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("siglip"))


def scored(mode, encoder):
    return SPARSE | LIMITS | dict(mm_preprocessor__video__slow_fast__mode=mode, mm_preprocessor__video__slow_fast__encoder=str(encoder))


@pytest.mark.parametrize("token", ["image_patch", "image_low_res"])
def test_periodic_answer(checkpoint, data, token, tmp_path):
    """Eight frames, one of four slow: 2 * 9 + 6 * 1 cells; pruned by half, int(9 * .5 * 2) of 9 + int(1 * .5 * 6) leave."""
    example = data.get(0, None)
    words = PERIODIC | dict(mm_preprocessor__video__slow_fast__fast_token=token)
    plain = load(checkpoint, vision_backbone__vit__prune=False).ask(example["video"], "Why?", max_new_tokens=4)
    whole = load(checkpoint, vision_backbone__vit__prune=False, **words).ask(example["video"], "Why?", max_new_tokens=4)
    qa = load(checkpoint, **words)
    pruned = qa.ask(example["video"], "Why?", max_new_tokens=4)
    assert plain.tokens_before - whole.tokens_before == 8 * 9 - 24 and whole.tokens_after == whole.tokens_before == pruned.tokens_before
    assert pruned.tokens_before - pruned.tokens_after == 9 + 3
    assert np.flatnonzero(pruned.slow).tolist() == [0, 4] and plain.slow is None and whole.keep_cells is None
    assert pruned.grid.window == (1, 1) and pruned.keep_cells.shape == pruned.scores.shape == (8, 81)
    assert pruned.keep_cells[0].all() and (~pruned.keep_cells).sum() == 9 * 9 + 3 * 81
    of_fast = pruned.keep_cells[~pruned.slow]
    assert of_fast.all(1).sum() == 3 == (~of_fast).all(1).sum()  # a fast frame of one cell stays or goes as a whole
    assert kept_tokens(qa.config) == "a video of 8 frames has 24 visual tokens, 12 after pruning"
    pruned.show(tmp_path / "kept.html")
    page = (tmp_path / "kept.html").read_text()
    assert page.count(" s, fast") >= 6 and "patches kept" in page


def test_one_slow_frame_of_all_is_the_plain_answer(checkpoint, data):
    """With a first limit that suffices nothing changes, to the last bit."""
    example = data.get(0, None)
    plain = load(checkpoint).ask(example["video"], "Why?", max_new_tokens=4)
    same = load(checkpoint, mm_preprocessor__video__slow_fast__mode="periodic").ask(example["video"], "Why?", max_new_tokens=4)
    assert same.text == plain.text and same.slow is None and np.array_equal(same.scores, plain.scores)


@pytest.mark.parametrize("mode", ["query", "difference"])
def test_scores_choose_the_slow_frames(checkpoint, data, encoder, mode):
    """The slow frames are those of the encoder's own scores for the question as the model gets it, and differ between videos."""
    qa = load(checkpoint, **scored(mode, encoder))
    scorer = qa.reader.preprocess.score_frames
    chosen = set()
    for video in sorted({data.get(i, None)["video"] for i in range(len(data))}):
        answer = qa.ask(video, "What colour is the star?", max_new_tokens=2)
        scores = scorer(qa.reader.videos.video.frames, ["What colour is the star?"])
        first = int(np.argmax(scores))  # the local half is one group of five frames, the global half is the best of the rest
        second = max((f for f in range(5) if f != first), key=lambda f: (scores[f], -f))
        assert np.flatnonzero(answer.slow).tolist() == sorted([first, second]) and len(answer.frames) == 5
        chosen.add((first, second))
    assert len(chosen) > 1


def test_the_question_decides_and_may_be_replaced(checkpoint, data, encoder):
    """`frame_sel_input` stands in for the question; otherwise it is the request itself, options and all, without the marks of the
    chat format. Seen to fail with them left in."""
    reader, asked = ExampleReader(load(checkpoint, **scored("query", encoder)).config), []
    reader.preprocess.score_frames = lambda frames, queries: asked.append(list(queries)) or np.arange(len(frames))
    example = {"video": data.get(0, None)["video"], "question": "<|video|> Why?", "style": "user_qa"}
    assert reader.read(example).metadata["slow_frames"] == [3, 4]
    reader.read(example | {"metadata": {"frame_sel_input": "a star"}})
    reader.read(example | {"question": "Which?", "options": ["red", "blue"]})
    assert asked == [["Why?"], ["a star"], ["Which?\nA. red\nB. blue"]]


def test_an_evaluation_batch_is_its_questions_one_by_one(checkpoint, data, encoder):
    """Batches mix videos whose slow frames differ; the text and what was kept are those of single questions."""
    for words in (PERIODIC, scored("query", encoder)):
        qa = load(checkpoint, **words)
        questions = list_questions(data)[::3][:6]
        (together,) = QuestionBatches(questions, qa.reader, 6).iterate(0)
        text = qa.decode(qa.generate(together.batch, 5))
        alone = [next(QuestionBatches([q], qa.reader, 1).iterate(0)) for q in questions]
        outputs = [qa.generate(a.batch, 5) for a in alone]
        assert text == [qa.decode(o)[0] for o in outputs] and together.records == [a.records[0] for a in alone]
        slow = [a.batch.metadata[0]["slow_frames"] for a in alone]
        assert slow == [m["slow_frames"] for m in together.batch.metadata] and (words is PERIODIC or len(set(map(tuple, slow))) > 1)
        kept = [kept_per_frame(a.batch.layout[0].segments, o.vision.keep_rows[0].numpy()) for a, o in zip(alone, outputs, strict=True)]
        for before, left, slow_ones in zip(alone, kept, slow, strict=True):
            whole = kept_per_frame(before.batch.layout[0].segments, None)
            assert whole == [9 if f in slow_ones else 1 for f in range(len(whole))] and left[0] == whole[0]
            assert sum(left) == before.records[0]["visual_after"] and all(a <= b for a, b in zip(left, whole, strict=True))
        counted = [o.tokens_before[0] - o.tokens_after[0] for o in outputs]
        assert counted == [r["visual_before"] - r["visual_after"] for r in together.records]


def test_workers_score_frames(checkpoint, data, encoder):
    config = load(checkpoint, **scored("difference", encoder)).config
    questions = list_questions(data)[:2]
    here, there = (next(QuestionBatches(questions, ExampleReader(config), 2).iterate(n)) for n in (0, 1))
    assert torch.equal(here.batch.fast_rows, there.batch.fast_rows) and torch.equal(here.batch.fast_pooling, there.batch.fast_pooling)


def test_what_cannot_work_is_refused(checkpoint, data, tmp_path):
    key = "mm_preprocessor__video__slow_fast__"
    with pytest.raises(OLMoConfigurationError, match="periodic, query, difference"):
        load(checkpoint, **{f"{key}mode": "often"})
    with pytest.raises(OLMoConfigurationError, match="mode query needs video.slow_fast.encoder"):
        load(checkpoint, **{f"{key}mode": "query"})
    with pytest.raises(OLMoConfigurationError, match="nowhere is no folder of an encoder"):
        load(checkpoint, **{f"{key}mode": "difference", f"{key}encoder": str(tmp_path / "nowhere")})
    for method in ("tome", "fewer_frames", "lower_resolution"):
        with pytest.raises(OLMoConfigurationError, match=f"prune_method {method}, which needs frames of equal cells"):
            load(checkpoint, vision_backbone__vit__prune_method=method, **PERIODIC)
    config = load(checkpoint, **PERIODIC).config
    with pytest.raises(OLMoConfigurationError, match="slow_fast.mode must be null in training"):
        build_preprocessor(config, is_training=True)
    low = replace_token(config, "image_low_res")
    with pytest.raises(OLMoDataError, match="reserved token <im_patch> or <im_low>"):
        example = {"video": data.get(0, None)["video"], "question": "What is <im_low>?", "style": "user_qa"}
        build_preprocessor(low, load_video=VideoLoader(), for_inference=True)(example, np.random.default_rng(0))


def replace_token(config, token: str):
    video = config.mm_preprocessor.video
    slow_fast = replace(video.slow_fast, fast_token=token)
    return replace(config, mm_preprocessor=replace(config.mm_preprocessor, video=replace(video, slow_fast=slow_fast)))
