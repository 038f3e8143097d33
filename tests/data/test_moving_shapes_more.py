"""Generated captions, images and texts: true answers, other scenes than the videos', and one packed row that holds every kind."""

import re

import numpy as np
import pytest

from olmo.batch import MultimodalType
from olmo.data.catalogue import get_dataset
from olmo.data.mixtures import mixture_by_name
from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig
from olmo.data.moving_shapes_more import STILL, VIDEO, picture, scene_of
from olmo.data.moving_shapes_scene import CELLS, render
from olmo.data.moving_shapes_words import describe
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.train.config import TrainConfig
from olmo.train.data import build_loader
from tests.data.test_moving_shapes import coloured
from tests.train.command import CONFIG
from tests.train.conftest import shapes, shapes_folder  # noqa: F401
from tests.train.ranks import ALONE

DRAWN = ("moving_shapes_image", "moving_shapes_multi_image", "moving_shapes_text")
SETTINGS = MovingShapesConfig(num_train=12, num_test=6)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", DRAWN)
def test_examples_are_the_same_every_time_and_differ_between_splits(name):
    data, again, held_out = (get_dataset(name, split, moving_shapes=SETTINGS) for split in ("train", "train", "test"))
    assert (len(data), len(held_out)) == (12, 6)
    texts = [str(data.get(i, RNG)["message_list"]) for i in range(6)]
    assert texts == [str(again.get(i, RNG)["message_list"]) for i in range(6)] and len(set(texts)) == 6
    assert texts != [str(held_out.get(i, RNG)["message_list"]) for i in range(6)]


def seen(image: np.ndarray) -> dict[str, str]:
    """Colour -> cell, from the pixels alone."""
    found = {}
    for name, mask in coloured(image).items():
        rows, columns = np.nonzero(mask)
        found[name] = CELLS[3 * int(rows.mean() * 3 // len(image)) + int(columns.mean() * 3 // len(image))]
    return found


def test_answers_about_a_picture_are_true_on_its_pixels():
    """Seen to fail with the first moment of the scene drawn instead of the last."""
    data, checked = get_dataset("moving_shapes_image", "train", moving_shapes=SETTINGS), 0
    for index in range(len(data)):
        example = data.get(index, RNG)
        there = seen(example["image"])
        for message in example["message_list"]:
            asked = message["question"]
            if asked.startswith("How many"):
                assert message["answer"] == str(len(there))
            elif place := re.fullmatch(r"Where is the (\w+) shape\?", asked):
                assert message["answer"] == there[place[1]]
            else:
                assert message["metadata"]["question_type"] == "colour" and message["answer"] in there
            checked += 1
    assert checked > 40


def test_answers_about_several_pictures_are_true_on_their_pixels():
    data, kinds = get_dataset("moving_shapes_multi_image", "train", moving_shapes=SETTINGS), set()
    for index in range(len(data)):
        example = data.get(index, RNG)
        there = [seen(image) for image in example["image"]]
        assert len(there) in (2, 3)
        for message in example["message_list"]:
            kind, asked, answer = message["metadata"]["question_type"], message["question"], message["answer"]
            colour = re.search(r"a (\w+) shape", asked)
            if kind == "count":
                assert answer == str(len(there[int(re.search(r"image (\d)", asked)[1]) - 1]))
            elif kind == "which":
                assert [str(n) for n, colours in enumerate(there, 1) if colour[1] in colours] == [answer]
            else:
                assert sum(colour[1] in colours for colours in there) == int(answer) > 1
            kinds.add(kind)
    assert kinds == {"count", "which", "how_many"}


def test_the_text_answers_its_own_questions():
    data, checked = get_dataset("moving_shapes_text", "train", moving_shapes=SETTINGS), 0
    for index in range(len(data)):
        (message,) = data.get(index, RNG)["message_list"]
        first, answer, *rest = message["messages"]
        described = first.partition(" stops at the place ")[0]
        if "How many shapes" in first:
            assert answer == re.match(r"Number of shapes: (\d)", described)[1]
            checked += 1
        if "Which colour appears first" in first:
            assert f"First a {answer} " in first
            checked += 1
        assert len(rest) == 2 and message["style"] == "text_sft"
    assert checked


def test_a_caption_tells_what_the_video_shows(shapes):  # noqa: F811
    """The scene of the caption is the scene of the file: its answers are those of the questions."""
    config = TrainConfig.load(CONFIG).data.moving_shapes
    captions, videos = get_dataset("moving_shapes_captions", "train", moving_shapes=config), MovingShapes(config)
    assert len(captions) == len(videos) == 8
    for index in range(8):
        example = captions.get(index, RNG)
        assert example["video"] == videos.get(index, RNG)["video"]
        for question in videos.questions[index]:
            if question.type == "count":
                assert f"Number of shapes: {question.answer}." in example["answer"]
            if question.type == "stopped":
                colour = re.search(r"the (\w+) shape", question.question)[1]
                assert re.search(rf"{colour} \w+ appears [^.]* stops at the place {question.answer}\.", example["answer"])


def test_pictures_show_other_scenes_than_the_videos():
    (video, _), (still, _) = (scene_of(SETTINGS, "train", 3, purpose) for purpose in (VIDEO, STILL))
    assert describe(video) != describe(still)
    assert np.array_equal(render(video, 4)[-1].shape, picture(video).shape)


def test_mistakes():
    with pytest.raises(OLMoConfigurationError, match="a picture answers none of them"):
        get_dataset("moving_shapes_image", "train", moving_shapes=MovingShapesConfig(question_types=["first"]))
    with pytest.raises(OLMoDataError, match="moving_shapes_text has no split 'val'; it has train, test"):
        get_dataset("moving_shapes_text", "val")


def test_one_packed_batch_holds_every_kind_and_trains(shapes):  # noqa: F811
    """Questions and captions of videos, one picture, several, and text; the gradient reaches every part of the model."""
    overrides = ["data.dataset=moving_shapes_all", "data.packing={buffer_size: 8}", "data.sequence_length=1024"]
    overrides += ["model.mm_preprocessor.image.max_images=3", "global_train_batch_size=4"]
    cfg = TrainConfig.load(CONFIG, overrides)
    assert len(mixture_by_name("moving_shapes_all")) == 3
    batch = next(iter(build_loader(cfg, ALONE)))
    kinds = {segment.kind for row in batch.layout for segment in row.segments}
    names = {str(m["example_id"]).partition("/")[0] for row in batch.metadata for m in row["examples"]}
    assert kinds == {MultimodalType.VIDEO, MultimodalType.IMAGE, MultimodalType.MULTI_IMAGE}
    assert names == {"moving_shapes", "moving_shapes_captions", *DRAWN}
    model = cfg.model.build_model("cpu")
    model.reset_parameters()
    model(batch, compute_loss=True).loss.ce.backward()
    for part, members in model.parameter_groups().items():
        norms = [float(p.grad.norm()) for _, p in members if p.grad is not None]
        assert part not in ("llm", "vit", "connector") or max(norms) > 0, part
