"""Miniatures of all benchmarks in one data folder, in the formats of their publishers, with one small clip as every video."""

from pathlib import Path

from olmo.data.catalogue import get_dataset
from olmo.eval.task import Task
from tests.data.clips import write_clip
from tests.data.families.fixtures import Miniature
from tests.data.families.test_benchmarks import ego_schema, motionbench, mvbench, temporal_bench, tomato
from tests.data.families.test_general_qa import NEXTQA, PERCEPTION_ROW
from tests.data.families.test_grounding import QV_FILES, qv
from tests.data.families.test_long_benchmarks import lvbench, mlvu, video_eval_pro
from tests.data.families.test_molmo2_benchmarks import captions, counts, points
from tests.data.families.test_subtitle_benchmarks import long_video_bench, video_mme
from tests.data.families.test_temp_compass import temp_compass


def write_benchmarks(root: Path) -> None:
    """Everything but the videos, below `root` as MOLMO_DATA_DIR."""

    def files(folder: str) -> Miniature:
        return Miniature(root / "video_datasets" / folder)

    nextqa = NEXTQA | {"video": 4010069381, "answer": 2, "qid": 6}
    files("NeXTQA").parquet("MC/test-00000-of-00001.parquet", [nextqa, nextqa | {"qid": 7, "type": "TN"}])
    rows = [PERCEPTION_ROW, PERCEPTION_ROW | {"question_id": "4"}]
    files("perception_test").parquet("mc_question_val/validation-00000-of-00001.parquet", rows)
    files("perception_test").parquet("Test/mc_question/test-00000-of-00001.parquet", [row | {"answer_id": None} for row in rows])
    mvbench(files("MVBench"), start=1.0, end=3.0)
    tomato(files("TOMATO"))
    motionbench(files("MotionBench"))
    temp_compass(files("TempCompass"))
    ego_schema(files("EgoSchema"))
    temporal_bench(files("TemporalBench"))
    video_mme(files("Video-MME"))
    long_video_bench(files("LongVideoBench"))
    mlvu(files("MVLU"))
    lvbench(files("LVBench"))
    video_eval_pro(files("VideoEvalPro"))
    captions(files("Molmo2-CapEval"))
    counts(files("Molmo2-VideoCountEval"))
    masks = [[{"frame_id": frame, "mask": {"size": [360, 640], "counts": whole_mask(360, 640)}}] for frame in (1, 6)]
    points(files("Molmo2-VideoPointEval"), masks=masks)
    files("QVHighlights").jsonl(QV_FILES["validation"], [qv(8737, ((0, 16), (82, 150)))])
    files("QVHighlights").touch("videos/bP5KfdFJzC4_660.0_810.0.mp4")


def link_videos(tasks: list[Task], clip: Path) -> None:
    """`clip` under the name of every video of the tasks."""
    for task in tasks:
        dataset = get_dataset(task.source, task.split)
        for index in range(len(dataset)):
            video = Path(dataset.get(index, None)["video"])
            video.parent.mkdir(parents=True, exist_ok=True)
            video.unlink(missing_ok=True)
            video.symlink_to(clip)


def clip_of_12_seconds(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4", frames=24, fps=2)


def whole_mask(height: int, width: int) -> str:
    """All pixels, as the run lengths of COCO masks are written: five bits to a character, the lowest first."""
    text = ""
    for run in (0, height * width):
        while True:
            bits, run = run & 31, run >> 5
            more = run != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text
