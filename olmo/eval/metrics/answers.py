"""Reading an answer out of generated text. What cannot be read is wrong, never skipped and never guessed."""


def normalise(text: str) -> str:
    """Lower case, single spaces, no closing punctuation."""
    return " ".join(text.lower().split()).strip(" .!,;:\"'")


def same_short_answer(prediction: str, answer: str | list[str]) -> bool:
    """Whether the prediction is the answer (or one of several accepted answers), up to case, spaces and a final dot."""
    accepted = [answer] if isinstance(answer, str) else answer
    prediction = normalise(prediction)
    return bool(prediction) and any(prediction == normalise(a) for a in accepted)
