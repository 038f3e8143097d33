"""Train the tiny tokenizer of the demo: a byte-level BPE of about 1,000 entries on generated text.

    python scripts/train_tiny_tokenizer.py [--output configs/tiny_tokenizer] [--vocab_size 1000]

The text is made here from word lists (questions and answers about moving shapes, time stamps, chat turns, plain
English instructions), so that nothing has to be downloaded and a second run gives the same files, byte for byte. Numbers
are split into single digits, as in the large models' tokenizer.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

COLOURS = "red orange yellow green blue purple pink brown black white grey gray cyan magenta".split()
SHAPES = "circle square triangle star diamond cross ring rectangle ball disc shape object".split()
DIRECTIONS = "up down left right upwards downwards leftwards rightwards diagonally".split()
PLACES = [
    f"{v} {h}".strip()
    for v in ("top", "middle", "bottom", "upper", "lower", "")
    for h in ("left", "centre", "center", "right", "middle", "")
    if v or h
]
NUMBERS = "zero one two three four five six seven eight nine ten none several both first second third last".split()
VERBS = "moves stops appears disappears turns starts leaves enters crosses stays falls rises bounces".split()
QUESTIONS = [
    "What colour is the {shape}?",
    "What color is the moving {shape}?",
    "Which colour is the {shape} that {verb}?",
    "What shape is the {colour} object?",
    "In which direction does the {colour} {shape} move?",
    "Which direction is the {shape} moving?",
    "Does the {colour} {shape} move {direction} or {direction}?",
    "How many shapes are in the video?",
    "How many {shape}s move {direction}?",
    "How many objects are there in this video?",
    "Which {shape} appears first?",
    "Which colour appears first, in the middle, last?",
    "What is the colour of the {shape} that appears last?",
    "Where does the {colour} {shape} stop?",
    "Where did the {shape} stop at the end of the video?",
    "When does the {colour} {shape} appear?",
    "What happens after the {colour} {shape} {verb}?",
    "What happens in the video?",
    "Describe the video in detail.",
    "Which of the shapes stopped before the end?",
]
ANSWERS = [
    "{colour}",
    "{Colour}",
    "{direction}",
    "{number}",
    "{shape}",
    "{place}",
    "the {place}",
    "It {verb} {direction}.",
    "The {colour} {shape} {verb} {direction}.",
    "There are {number} shapes.",
    "At {time} seconds.",
    "yes",
    "no",
    "Yes, it does.",
    "No, it does not.",
]
COMMON = (
    "about after again all also and any are around as at be because been before began between big both but by came can close "
    "could dark day different does done down during each every fast few find for found from give good great had has have he "
    "her here high him his how if in into it its just keep know large like little long look made main make man many may more "
    "most much must name near new next not now of off old on once one only open or other our out over part people person "
    "place put right same see seen she should show side slow small so some speed still such take than that their them then "
    "there these they thing think this those through time to together too toward two under until use very walk was water way "
    "we well were what when where which while white who why will with woman word work would write you your "
).split()
INSTRUCTIONS = [
    "Only return the correct answer option.",
    "Answer with the option's letter from the given choices directly.",
    "Please respond with only the letter of the correct answer.",
    "Answer with a single word or a short phrase.",
    "Select the best answer to the following multiple-choice question based on the video.",
    "Respond with only the letter (A, B, C, or D) of the correct option.",
    "The best answer is:",
    "Write a long and detailed caption for this video.",
    "What can be seen in this image? Please explain your answer briefly.",
    "Watch the video carefully and answer the question below.",
    "If you are not sure, give the most likely answer; do not say more than you can see.",
    "Point to the objects that were asked for and count them.",
    "Question: Answer: Options: Short answer:",
    "video_short_answer: video_multiple_choice: video_long_caption: demo: subtitle",
]


def sentence(rng: random.Random, pattern: str) -> str:
    """Fill every slot of `pattern`, each occurrence anew."""
    slots = {
        "colour": COLOURS,
        "shape": SHAPES,
        "direction": DIRECTIONS,
        "place": PLACES,
        "number": [*NUMBERS, *map(str, range(11))],
        "verb": VERBS,
    }
    for name, words in slots.items():
        while f"{{{name}}}" in pattern:
            pattern = pattern.replace(f"{{{name}}}", rng.choice(words), 1)
    pattern = pattern.replace("{Colour}", rng.choice(COLOURS).capitalize())
    return pattern.replace("{time}", f"{rng.uniform(0, 90):.1f}")


def corpus(seed: int = 7, size: int = 6000) -> list[str]:
    """Chat turns as the model will see them, time stamps and subtitles included."""
    rng = random.Random(seed)
    lines = []
    for i in range(size):
        question = sentence(rng, rng.choice(QUESTIONS))
        if i % 3 == 0:
            options = [sentence(rng, rng.choice(ANSWERS)) for _ in range(rng.randint(2, 5))]
            question += "\n" + "\n".join(f"{'ABCDE'[k]}. {o}" for k, o in enumerate(options)) + "\n" + rng.choice(INSTRUCTIONS)
        answer = sentence(rng, rng.choice(ANSWERS))
        times = " ".join(f"{0.5 * k:.1f}" for k in range(rng.randint(0, 6)))
        lines += ["user\n", question, "assistant\n", answer, times]
        lines.append(f"{answer} {rng.choice(INSTRUCTIONS)}")
    lines += [
        w for words in (COLOURS, SHAPES, DIRECTIONS, NUMBERS) for word in words for w in (word, f" {word}", f" {word.capitalize()}")
    ] * 20
    lines += [f" {word}" for word in COMMON] * 40 + [word.capitalize() for word in COMMON] * 5
    return lines


def train(vocab_size: int) -> Tokenizer:
    """The trained tokenizer; ids 0, 1, 2 are the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the Hugging Face files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[0],
        "additional_special_tokens": SPECIAL[1:],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent.parent / "configs" / "tiny_tokenizer")
    parser.add_argument("--vocab_size", type=int, default=1000)
    args = parser.parse_args()
    tokenizer = train(args.vocab_size)
    save(tokenizer, args.output)
    print(f"{tokenizer.get_vocab_size()} entries written to {args.output}")


if __name__ == "__main__":
    main()
