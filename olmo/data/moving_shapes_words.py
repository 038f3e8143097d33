"""What can be said of a `moving_shapes` scene without a video: a description, questions about its last moment, questions about pictures
of several scenes. True by construction, as all questions are."""

from collections.abc import Sequence

import numpy as np

from olmo.data.moving_shapes_scene import COLUMNS, COUNTS, ROWS, Question, Scene, all_questions

AT_THE_END = ("count", "colour", "stopped", "shape")
"""Types of questions whose answers the last moment shows."""

ORDER = ("First", "Then", "Last")


def describe(scene: Scene) -> str:
    """The scene in a few sentences, in the order of appearance."""
    lanes, word = (ROWS, "row") if scene.horizontal else (COLUMNS, "column")
    answers = {q.question: q.answer for q in all_questions(scene, np.random.default_rng(0))}
    sentences = [f"Number of shapes: {len(scene.shapes)}."]
    for order, shape in zip(ORDER, scene.shapes, strict=False):
        way = answers[f"Which way does the {shape.colour} shape move?"]
        stop = answers[f"Where does the {shape.colour} shape stop?"]
        sentences.append(
            f"{order} a {shape.colour} {shape.kind} appears in the {lanes[shape.lane]} {word}, moves {way} and stops at the place {stop}."
        )
    return " ".join(sentences)


def questions_at_the_end(scene: Scene, rng: np.random.Generator, types: Sequence[str]) -> list[Question]:
    """Questions of these types that the last moment answers, in any order."""
    asked = [q for q in all_questions(scene, rng) if q.type in AT_THE_END and q.type in types]
    asked = [Question(q.type, q.question.replace("does the", "is the").replace(" stop?", "?"), q.answer) for q in asked]
    return [asked[i] for i in rng.permutation(len(asked))]


def questions_about_pictures(scenes: Sequence[Scene], rng: np.random.Generator) -> list[Question]:
    """Questions about the last moments of several scenes, which are counted from 1, in any order."""
    colours = [{s.colour for s in scene.shapes} for scene in scenes]
    asked = []
    for number, scene in enumerate(scenes, 1):
        asked.append(Question("count", f"How many shapes are there in image {number}?", COUNTS[len(scene.shapes) - 1]))
    for colour in sorted(set.union(*colours)):
        where = [str(number) for number, there in enumerate(colours, 1) if colour in there]
        if len(where) == 1:
            asked.append(Question("which", f"Which image shows a {colour} shape?", where[0]))
        else:
            asked.append(Question("how_many", f"How many images show a {colour} shape?", str(len(where))))
    return [asked[i] for i in rng.permutation(len(asked))]
