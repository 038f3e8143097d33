"""From the published files to the words that the model reads: a few sets through the formatter of fine-tuning."""

import numpy as np
import pytest

from olmo.data.load_video import VideoLoader
from olmo.data.video_reader import VideoReaderConfig
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.message_tree import MessageTreeBuilder, TextPreprocessorConfig
from olmo.preprocessing.multimodal import ExamplePreprocessor
from olmo.preprocessing.video import VideoPreprocessor, VideoPreprocessorConfig
from olmo.tokenizer import TokenizerConfig, build_tokenizer
from tests.data.families.asking import FORMATTER
from tests.data.families.fixtures import SEED, example, open_split
from tests.data.families.test_actions import EPIC, kinetics
from tests.data.families.test_clips_qa import HOW2QA
from tests.data.families.test_general_qa import LLAVA_MC, NEXTQA, llava
from tests.data.families.test_television_qa import NEWS, TVQA, tvqa
from tests.data.test_frame_folder import write_frames


def turn(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def spoken(name, split="train", training=False, **mode):
    return FORMATTER(example(name, split), np.random.default_rng(SEED), is_training=training, **mode)


def test_a_benchmark_asks_for_the_letter(miniature):
    miniature("NeXTQA").parquet("MC/test-00000-of-00001.parquet", [NEXTQA | {"video": 1, "answer": 2, "qid": 6}])
    messages, metadata = spoken("nextqa_mc", "test", for_inference=True)
    options = "A. answer 0\nB. answer 1\nC. answer 2\nD. answer 3\nE. answer 4"
    request = "Answer with the option's letter from the given choices directly."
    assert messages == [turn(f"how do the two man play the instrument\n{options}\n{request}")]
    assert metadata == {"answer": "C"}


def test_labels_are_asked_for_by_their_style(miniature):
    files = miniature("kinetics710")
    kinetics(files)
    files.touch("../kinetics400/videos_train/jf7RDuUTrsQ.mp4")
    assert spoken("kinetics_qa")[0] == [[turn("kinetics_label: What action is the person taking?"), "air drumming"]]
    miniature("epic_kitchens").csv("EPIC_100_train.csv", [EPIC])
    assert spoken("epic_kitchens_qa", training=True)[0] == [
        [turn("epic_kitchens_label: What activity does the video depict?"), "open door"]
    ]


def test_options_in_the_standard_form(miniature):
    files = miniature("how2QA")
    files.text("how2QA_train_release.csv", HOW2QA)
    files.touch("video-clips/dnUFgR92F8M_22.21_39.62.mp4")
    options = "A. lethally poisonous\nB. midly poisonous\nC. unclear\nD. not poisonous"
    question = f"How poisonous are they, in the clip?\nOnly return the correct answer option.\n{options}"
    assert spoken("how2qa")[0] == [[turn(question), "D. not poisonous"]]


@pytest.mark.parametrize("training", [False, True])
def test_options_inside_a_text_stay_as_they_are(miniature, training):
    llava(miniature("LLaVA-Video-178K"), "mc", LLAVA_MC)
    messages = spoken("llava_video_mc_academic", training=training)[0]
    assert messages[0] == [turn("How many?\nA. one.\nB. two.\nAnswer with the letter."), "B. two."]


def test_short_answers_carry_their_style(miniature):
    miniature("NewsVideoQA").json("news_train.json", NEWS)
    for question, answer in spoken("news_video_qa_filtered", training=True)[0]:
        assert question.startswith("<|im_start|>user\nvideo_short_answer: ") and answer in ("BBC", "9 pm")


def test_a_part_of_tvqa_with_what_is_said_in_it(miniature):
    """Frames, their times and the subtitles are those of the part, all counted from its start."""
    files = miniature("TVQA")
    tvqa(files, [TVQA])
    write_frames(files.folder / "video-frames/frames_hq/met_frames" / TVQA["vid_name"], range(1, 61))
    tokenizer = build_tokenizer(TokenizerConfig("tiny"), 1024)
    config = VideoPreprocessorConfig(max_frames=4, time_sampling=True, frame_sample_mode="uniform_last_frame", max_fps=[2.0])
    preprocess = ExamplePreprocessor(
        formatter=FORMATTER,
        text=MessageTreeBuilder(TextPreprocessorConfig(), tokenizer),
        video=VideoPreprocessor(config, PixelConfig((28, 42)), tokenizer),
        image=None,
        tokenizer=tokenizer,
        is_training=False,
        for_inference=False,
        load_video=VideoLoader(VideoReaderConfig(backend="pyav")),
    )
    processed = preprocess(open_split("tvqa_with_sub").get(0, np.random.default_rng(SEED)), np.random.default_rng(SEED))
    cell = "<frame_start><im_patch><frame_end>"
    said = "subtitle\n0.0 - 1.0 (Ted:)Wow, Zoey?\n3.1 - 7.3 (Robin:)Cheers.\n"
    options = "".join(f"\n{letter}. answer {i}" for i, letter in enumerate("ABCDE"))
    question = f"What is Robin holding?\nOnly return the correct answer option.{options}"
    assert tokenizer.decode(processed.input_tokens, truncate_at_eos=False).replace("<|im_end|>", "") == (
        f"0.0 {cell} 2.4 {cell} 4.9 {cell} 7.3 {cell}{said}{turn(question)}E. answer 4".replace("<|im_end|>", "")
    )
    assert processed.metadata["show_name"] == "How I Met You Mother"
