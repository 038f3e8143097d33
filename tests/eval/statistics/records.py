"""Records of made-up questions."""

from typing import Any


def record(
    example: int, kind: str, right: bool, *, video: int | None = None, chance: float | None = 0.25, answer: str = "red"
) -> dict[str, Any]:
    return {
        "example_id": str(example),
        "video": f"{example if video is None else video}.mp4",
        "question_type": kind,
        "answer": answer,
        "prediction": answer if right else "nonsense",
        "chance": chance,
    }
