"""Scores of frames by a two-tower encoder, against transformers' own forward pass over one frame and one text at a time."""

import pickle

import numpy as np
import pytest
import torch

from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.inference.frame_scores import MAX_WINDOWS, DifferenceScores, QueryScores, TwoTowers, build_frame_scorer, windows
from olmo.preprocessing.slow_fast import SlowFastConfig
from tests.inference.siglip import write_encoder

RNG = np.random.default_rng(0)
FRAMES = np.where(RNG.random((19, 24, 40, 1)) < 0.2, 128, RNG.integers(0, 256, (19, 1, 1, 3))).astype(np.uint8)  # a colour each, speckled


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def whole(folder):
    """(model, tokenizer, processor) as transformers loads them."""
    from transformers import AutoImageProcessor, AutoTokenizer, SiglipModel

    return SiglipModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)


def cosines(whole, texts):
    """[F, texts] from the model's own logits."""
    model, tokenizer, processor = whole
    rows = []
    for frame in FRAMES:
        inputs = processor(images=frame, return_tensors="pt") | tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt")
        with torch.no_grad():
            out = model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
        rows.append((out.image_embeds @ out.text_embeds.T)[0])
    return torch.stack(rows).numpy()


def test_query_scores_are_the_cosines_of_the_model(folder, whole):
    """The query is lower-cased behind its prefix and ends in one <eos>. Seen to fail without the prefix and with bare padding."""
    found = QueryScores(TwoTowers(folder))(FRAMES, ["What COLOUR is the star?"])
    np.testing.assert_allclose(found, cosines(whole, ["This photo has : what colour is the star ? <eos>"])[:, 0], atol=1e-5)
    assert found.shape == (19,) and np.ptp(found) > 1e-3


def test_of_several_embeddings_the_best_one_counts(folder, whole):
    scorer = QueryScores(TwoTowers(folder))
    blue, photo = (scorer(FRAMES, [q]) for q in ("blue", "is the photo"))
    np.testing.assert_allclose(scorer(FRAMES, ["blue", "is the photo"]), np.maximum(blue, photo), atol=1e-6)
    assert (blue > photo + 1e-3).any() and (photo > blue + 1e-3).any()


def test_long_queries_are_cut_into_windows(folder, whole):
    """Seen to fail with windows of 64 tokens without their end."""
    assert windows(range(2, 8), 1, 0) == [[2, 3, 4, 5, 6, 7, 1] + [0] * 57]
    first, second = windows([5] * 63 + [6], 1, 0)
    assert first == [5] * 63 + [1] and second == [6, 1] + [0] * 62
    assert len(windows([5] * 63, 1, 0)) == 1 and len(windows([5] * 10_000, 1, 0)) == MAX_WINDOWS == 8
    query = "red " * 60 + "blue moves"  # with the prefix 66 words
    parts = ["This photo has : " + "red " * 59 + "<eos>", "red blue moves <eos>"]
    expected = cosines(whole, parts).max(1)
    np.testing.assert_allclose(QueryScores(TwoTowers(folder))(FRAMES, [query]), expected, atol=1e-5)


def test_difference_scores(folder, whole):
    """Oracle: the neighbours of every frame, one by one."""
    model, _, processor = whole
    with torch.no_grad():
        features = model.vision_model(**processor(images=list(FRAMES), return_tensors="pt")).pooler_output.numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    expected = []
    for f in range(len(FRAMES)):
        near = [abs(1 - features[f] @ features[g]) for g in (f - 1, f + 1) if 0 <= g < len(FRAMES)]
        expected.append(sum(near) / len(near))
    np.testing.assert_allclose(DifferenceScores(TwoTowers(folder))(FRAMES, []), expected, atol=1e-5)


def test_frames_of_one_video_are_encoded_once(folder, monkeypatch):
    """Several questions about one video; another array is another video. A copy for a worker brings neither model nor frames along."""
    seen, images = [], TwoTowers.images
    monkeypatch.setattr(TwoTowers, "images", lambda self, frames: seen.append(len(frames)) or images(self, frames))
    scorer = QueryScores(TwoTowers(folder))
    for frames, query in ((FRAMES, "a red star"), (FRAMES, "the blue circle"), (FRAMES[:3].copy(), "a red star"), (FRAMES, "a red star")):
        scores = scorer(frames, [query])
    assert seen == [19, 3, 19]
    copied = pickle.dumps(scorer)
    assert len(copied) < 1000
    np.testing.assert_array_equal(pickle.loads(copied)(FRAMES, ["a red star"]), scores)


def test_what_cannot_be_an_encoder_is_refused(folder, tmp_path):
    def config(mode, encoder):
        return SlowFastConfig.from_dict({"mode": mode, "encoder": str(encoder)})

    assert build_frame_scorer(SlowFastConfig()) is build_frame_scorer(config("periodic", tmp_path / "no")) is None
    with pytest.raises(OLMoConfigurationError, match="no is no folder of an encoder.*no config.json.*siglip2-so400m-patch14-384"):
        build_frame_scorer(config("difference", tmp_path / "no"))
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(OLMoEnvironmentError, match="the encoder in .* cannot be loaded"):
        build_frame_scorer(config("query", tmp_path))(FRAMES, ["what?"])


def test_a_model_of_another_kind_is_refused(folder, tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    write_encoder(tmp_path)
    tower = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    SiglipVisionModel(tower).save_pretrained(tmp_path)
    with pytest.raises(OLMoConfigurationError, match="SiglipVisionModel; video.slow_fast.encoder needs a SigLIP with both towers"):
        TwoTowers(tmp_path).images(FRAMES)
