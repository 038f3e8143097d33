"""Generated sets beside the questions about videos: captions of the same videos, still images, several images, and text alone.

Together they are one small example of everything that a training batch can hold. Images are drawn when they are asked for; nothing
of them lies on disk.
"""

from collections.abc import Callable, Sequence

import numpy as np

from olmo.data.dataset import Example
from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig, check_split
from olmo.data.moving_shapes_scene import Question, Scene, all_questions, draw_scene, render_at, scene_rng
from olmo.data.moving_shapes_words import AT_THE_END, describe, questions_about_pictures, questions_at_the_end
from olmo.exceptions import OLMoConfigurationError

CAPTION_STYLE, IMAGE_STYLE, TEXT_STYLE = "video_long_caption", "vqa2", "text_sft"
MOST_IMAGES = 3
VIDEO, STILL = 0, 2
"""Purposes of generators: the scenes of the videos, and others that no video shows (1 chooses the videos' questions)."""


def scene_of(config: MovingShapesConfig, split: str, number: int, purpose: int = STILL) -> tuple[Scene, np.random.Generator]:
    """Scene `number`, and the generator that drew it, for what else is to be drawn."""
    rng = scene_rng(config.seed, split, number, purpose)
    return draw_scene(rng, config.size, config.seconds), rng


def picture(scene: Scene) -> np.ndarray:
    """Its last moment, [H, W, 3] uint8."""
    return render_at(scene, np.array([scene.seconds]))[0]


def messages(questions: Sequence[Question], style: str) -> list[dict]:
    return [{"question": q.question, "answer": q.answer, "style": style, "metadata": {"question_type": q.type}} for q in questions]


class MovingShapesCaptions(MovingShapes):
    """The same videos, each with its description."""

    name = "moving_shapes_captions"

    def __len__(self) -> int:
        return len(self.videos)

    def get(self, index: int, rng: np.random.Generator) -> Example:
        scene, _ = scene_of(self.config, self.split, index, VIDEO)
        return {
            "video": self._path(index),
            "question": "Describe the video.",
            "answer": describe(scene),
            "style": CAPTION_STYLE,
            "metadata": {"example_id": f"{self.name}/{self.split}/{index}"},
        }


class DrawnScenes:
    """As many examples as there would be videos, each made from scenes that no video shows."""

    def __init__(self, name: str, config: MovingShapesConfig, split: str, make: Callable[["DrawnScenes", int], Example]) -> None:
        config.check()
        check_split(name, split)
        self.name, self.config, self.split, self.make = name, config, split, make

    def __len__(self) -> int:
        return self.config.count(self.split)

    def get(self, index: int, rng: np.random.Generator) -> Example:
        return {**self.make(self, index), "metadata": {"example_id": f"{self.name}/{self.split}/{index}"}}

    def scene(self, number: int) -> tuple[Scene, np.random.Generator]:
        return scene_of(self.config, self.split, number)


def _image(data: DrawnScenes, index: int) -> Example:
    scene, rng = data.scene(index)
    asked = questions_at_the_end(scene, rng, data.config.question_types)
    return {"image": picture(scene), "message_list": messages(asked, IMAGE_STYLE)}


def _several_images(data: DrawnScenes, index: int) -> Example:
    scene, rng = data.scene(index)
    others = rng.integers(len(data), size=int(rng.integers(1, MOST_IMAGES)))
    scenes = [scene, *(data.scene(int(number))[0] for number in others)]
    return {"image": [picture(s) for s in scenes], "message_list": messages(questions_about_pictures(scenes, rng), IMAGE_STYLE)}


def _text(data: DrawnScenes, index: int) -> Example:
    """A conversation about a description; its questions are those that a video would get."""
    scene, rng = data.scene(index)
    every = all_questions(scene, rng)
    first, second = (every[i] for i in rng.permutation(len(every))[:2])
    turns = [f"{describe(scene)} {first.question}", first.answer, second.question, second.answer]
    return {"message_list": [{"messages": turns, "style": TEXT_STYLE}]}


def moving_shapes_image(config: MovingShapesConfig, split: str) -> DrawnScenes:
    """One picture each, its questions as branches of one message tree."""
    if not set(config.question_types) & set(AT_THE_END):
        raise OLMoConfigurationError(f"moving_shapes.question_types: a picture answers none of them; add one of {', '.join(AT_THE_END)}")
    return DrawnScenes("moving_shapes_image", config, split, _image)


def moving_shapes_multi_image(config: MovingShapesConfig, split: str) -> DrawnScenes:
    """Two or three pictures each, with questions about one of them or all."""
    return DrawnScenes("moving_shapes_multi_image", config, split, _several_images)


def moving_shapes_text(config: MovingShapesConfig, split: str) -> DrawnScenes:
    """No picture at all: a description, and two questions about it."""
    return DrawnScenes("moving_shapes_text", config, split, _text)
