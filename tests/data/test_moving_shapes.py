"""The generated videos: true answers (checked on the pixels), reuse, growth, determinism and no hints in the questions."""

import json
import os
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig, ensure_generated
from olmo.data.moving_shapes_scene import CELLS, COLOURS, OPTIONS, all_questions, choose_questions, draw_scene, render, scene_rng
from olmo.data.video_reader import VideoReaderConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoEnvironmentError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return MovingShapesConfig(root=str(tmp_path_factory.mktemp("shapes")), num_train=12, num_test=24, processes=1)


def coloured(frame: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels of each shape colour in a decoded frame, found by distance alone: knows nothing of the scene."""
    names, palette = list(COLOURS), np.array(list(COLOURS.values()))
    distance = np.abs(frame[:, :, None].astype(int) - palette).sum(-1)  # [H, W, 6]
    nearest, close = distance.argmin(-1), distance.min(-1) < 110
    masks = {name: (nearest == i) & close for i, name in enumerate(names)}
    return {name: mask for name, mask in masks.items() if mask.sum() > 150}


def watch(frames: np.ndarray) -> dict[str, str]:
    """Answers to the questions that need no reference to a shape, and per colour its way: a slow oracle on pixels."""
    seen: dict[str, list] = {}
    for number, frame in enumerate(frames):
        for name, mask in coloured(frame).items():
            rows, columns = np.nonzero(mask)
            seen.setdefault(name, []).append((number, columns.mean(), rows.mean()))
    order = sorted(seen, key=lambda n: seen[n][0][0])
    answers = {"count": str(len(order)), "first": order[0], "last": order[-1]}
    if len(order) == 3:
        answers["middle"] = order[1]
    for name, track in seen.items():
        (_, x0, y0), (_, x1, y1) = track[0], track[-1]
        across, down = x1 - x0, y1 - y0
        sideways = abs(across) > abs(down)
        answers[f"direction {name}"] = ("right" if across > 0 else "left") if sideways else ("down" if down > 0 else "up")
        size = frames.shape[1] / 3
        answers[f"stopped {name}"] = CELLS[3 * int(y1 // size) + int(x1 // size)]
        answers[f"place {name}"] = (int(y1 // size), int(x1 // size), sideways)
    return answers


def test_answers_are_true_on_the_decoded_pixels(config):
    """Every question of every test video, answered from the H.264 file. Seen to fail with left and right exchanged."""
    data = MovingShapes(config, "test")
    reader = VideoReaderConfig(backend="pyav").build()
    checked = Counter()
    for number, questions in enumerate(data.questions):
        path = data.get(next(i for i, (v, _) in enumerate(data.items) if v == number), None)["video"]
        info = reader.probe(path)
        assert (info.num_frames, info.duration, info.width) == (16, 4.0, 126)
        watched = watch(reader.frames_of(info, np.arange(16)))
        for q in questions:
            checked[q.type] += 1
            if q.type in ("count", "first", "middle", "last"):
                assert q.answer == watched[q.type], (number, q)
            elif q.type in ("direction", "stopped"):
                colour = next(c for c in COLOURS if f"the {c} shape" in q.question)
                assert q.answer == watched[f"{q.type} {colour}"], (number, q)
            elif q.type == "colour":
                row, column, sideways = watched[f"place {q.answer}"]
                name = ("top", "middle", "bottom")[row] + " row" if sideways else ("left", "middle", "right")[column] + " column"
                assert q.question == "What colour is the shape?" or name in q.question, (number, q)
    assert set(checked) == set(OPTIONS) - {"shape"} and min(checked.values()) >= 4


def test_training_examples_are_trees_and_test_examples_single(config):
    train, test = MovingShapes(config, "train"), MovingShapes(config, "test")
    example = train.get(3, np.random.default_rng(0))
    assert len(train) == 12 and os.path.isfile(example["video"])
    assert {"question", "answer", "style", "metadata"} == set(example["message_list"][0])
    assert all(m["style"] == "video_short_answer" and m["metadata"]["question_type"] in OPTIONS for m in example["message_list"])
    single = test.get(5, np.random.default_rng(0))
    meta = single["metadata"]
    assert single["answer"] == meta["answer"] in meta["options"] == list(OPTIONS[meta["question_type"]])
    assert len({test.get(i, None)["metadata"]["example_id"] for i in range(len(test))}) == len(test)
    assert train.get(3, None) == example and train.get(3, None) is not example


def test_second_use_writes_nothing_and_growth_only_adds(tmp_path):
    """Seen to fail when the number of videos is part of the folder's hash."""
    config = MovingShapesConfig(root=str(tmp_path), num_train=6, num_test=2, processes=1)
    before = MovingShapes(config, "train")
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    assert len(files) == 6
    MovingShapes(replace(config, questions_per_video=2, question_types=["count"]), "train")
    grown = MovingShapes(replace(config, num_train=9), "train")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4") if p in files} == files
    assert len(list(tmp_path.rglob("*.mp4"))) == 9 and grown.questions[:6] == before.questions
    assert len(MovingShapes(config, "train")) == 6


def test_interrupted_generation_goes_on(tmp_path):
    """Without the marker nothing counts as done, but whole files are kept; half-written ones have another name."""
    config = MovingShapesConfig(root=str(tmp_path), num_train=5, num_test=1, processes=1)
    folder = ensure_generated(config, "train")
    (folder / "complete.json").unlink()
    (folder / "0000" / "000003.mp4").unlink()
    kept = (folder / "0000" / "000001.mp4").stat().st_mtime_ns
    MovingShapes(config, "train")
    assert (folder / "0000" / "000003.mp4").exists() and json.loads((folder / "complete.json").read_text())["videos"] == 5
    assert (folder / "0000" / "000001.mp4").stat().st_mtime_ns == kept
    assert not list(folder.rglob("*.part*"))


def test_parallel_generation_is_the_same(tmp_path):
    """Seen to fail with the records in another order, and with a random generator of the process."""
    one = MovingShapesConfig(root=str(tmp_path / "one"), num_train=100, num_test=1, processes=1)
    two = replace(one, root=str(tmp_path / "two"), processes=2)
    a, b = MovingShapes(one, "train"), MovingShapes(two, "train")
    assert a.questions == b.questions
    for name in a.videos[::17]:
        assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes()


def test_scenes_depend_on_seed_split_and_index_only():
    def picture(seed, split, index):
        return render(draw_scene(scene_rng(seed, split, index), 126, 4.0), 4)

    assert (picture(0, "train", 5) == picture(0, "train", 5)).all()
    for other in ((1, "train", 5), (0, "test", 5), (0, "train", 6)):
        assert (picture(0, "train", 5) != picture(*other)).mean() > 0.5


@pytest.mark.parametrize("number", [3, 4, 6])
def test_questions_carry_no_hint(number):
    """The answer's distribution given that a question is asked is flat (within 4 standard errors): a model that sees
    nothing stays at chance. Seen to fail when counting is asked more often about videos with room for it."""
    answers: dict[str, Counter] = defaultdict(Counter)
    types = [t for t in OPTIONS if t != "shape"]
    for index in range(3000):
        rng = scene_rng(7, "train", index)
        scene = draw_scene(rng, 126, 4.0)
        chosen = choose_questions(all_questions(scene, rng), scene_rng(7, "train", index, 1), types, number)
        assert 1 <= len(chosen) <= number and len({q.type for q in chosen}) == len(chosen)
        for q in chosen:
            answers[q.type][q.answer] += 1
    assert set(answers) == set(types)
    for kind, counts in answers.items():
        total, chance = sum(counts.values()), 1 / len(OPTIONS[kind])
        assert set(counts) == set(OPTIONS[kind])
        for count in counts.values():
            assert abs(count - total * chance) < 4 * np.sqrt(total * chance * (1 - chance)), (kind, counts)


def test_most_of_the_picture_is_still():
    """There must be something to prune: shapes move in few of the 9 cells, the rest differs by camera noise only."""
    moving = []
    for index in range(20):
        frames = render(draw_scene(scene_rng(0, "train", index), 126, 4.0), 2).astype(float)
        cells = frames.reshape(8, 3, 42, 3, 42, 3).mean((2, 4))  # [F, 3, 3, rgb]
        moving.append((np.abs(np.diff(cells, axis=0)).max(-1) > 4).mean())
    assert 0.05 < np.mean(moving) < 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_types": ["colour", "smell"]}, "question_types: \\['smell'\\]; choose from colour"),
        ({"num_train": 0}, "num_train must be at least 1"),
        ({"size": 63}, "size must be even"),
        ({"fps": 1}, "fewer than 8 frames"),
    ],
)
def test_settings_are_checked(tmp_path, change, message):
    with pytest.raises(OLMoConfigurationError, match=message):
        MovingShapes(replace(MovingShapesConfig(root=str(tmp_path)), **change), "train")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OLMoEnvironmentError, match="cannot be written to .*set MOLMO_DATA_DIR"):
        MovingShapes(MovingShapesConfig(root=str(tmp_path / "file")), "train")
    with pytest.raises(OLMoDataError, match="train and test, not 'dev'"):
        MovingShapes(MovingShapesConfig(root=str(tmp_path)), "dev")
