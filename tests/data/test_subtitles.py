"""Subtitle files of every kind, into the mapping that examples carry."""

import json

import pytest

from olmo.data.annotations import read_json
from olmo.data.subtitles import cues_of, read_subtitles, rebased
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.video import VideoPreprocessor, VideoPreprocessorConfig
from tests.preprocessing.test_video import TOK

SRT = """1
00:00:00,000 --> 00:00:00,400
hello

2
00:00:02,000 --> 00:00:03,000
{\\an8}<i>near</i>
by &amp; by

3
01:00:02,300 --> 01:00:03,000
far
"""

VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: lime }

NOTE 00:05.000 --> 00:06.000 is no cue
here

00:00.000 --> 00:00.400 align:start position:0%
hello

name of a cue
00:00:02.000 --> 00:00:03.000
<v Anna>near<00:00:02.500><c> by</c>
&amp; by

01:00:02.300 --> 01:00:03.000
far
"""

CUES = {(0.0, 0.4): "hello", (2.0, 3.0): "near by & by", (3602.3, 3603.0): "far"}


def write(tmp_path, name: str, text: str, **options):
    path = tmp_path / name
    path.write_text(text, **options)
    return path


@pytest.mark.parametrize("name", ["a.srt", "a.SRT", "a.vtt"])
@pytest.mark.parametrize("style", [{}, {"newline": "\r\n"}, {"encoding": "utf-8-sig"}])
def test_text_formats(tmp_path, name, style):
    path = write(tmp_path, name, VTT if name.endswith("vtt") else SRT, **style)
    assert read_subtitles(path) == CUES
    assert list(read_subtitles(str(path))) == list(CUES)


@pytest.mark.parametrize(
    "content",
    [
        [{"start": s, "end": e, "text": t} for (s, e), t in CUES.items()],
        {str(i): {"start": s, "end": e, "text": t} for i, ((s, e), t) in enumerate(CUES.items())},
        [{"timestamp": [s, e], "text": t} for (s, e), t in CUES.items()],
        [
            {"start": "00:00:00.000", "end": "00:00:00.400", "line": "hello"},
            {"start": "00:00:02", "end": "3", "line": "near\nby &amp; by"},
            {"start": "01:00:02.3", "end": "01:00:03.000", "line": "far"},
        ],
    ],
)
def test_json_forms(tmp_path, content):
    assert read_subtitles(write(tmp_path, "a.json", json.dumps(content))) == CUES


def test_one_file_for_many_videos(tmp_path):
    """A mapping from the name of a video to its cues, as one benchmark ships it."""
    path = write(tmp_path, "subtitles.json", json.dumps({"v1": {"0": {"start": 1, "end": 2, "text": "one"}}, "v2": {}}))
    videos = read_json(path)
    assert cues_of(videos["v1"], f"{path}, v1") == {(1.0, 2.0): "one"} and cues_of(videos["v2"], f"{path}, v2") == {}


def test_empty_and_simultaneous_cues(tmp_path):
    """Seen to lose a sentence when the later cue replaces the earlier one."""
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\n-Yes.\n\n2\n00:00:01,000 --> 00:00:02,000\n-No.\n\n3\n00:00:03,000 --> 00:00:04,000\n<i> </i>\n"
    )
    assert read_subtitles(write(tmp_path, "a.srt", text)) == {(1.0, 2.0): "-Yes. -No."}
    assert read_subtitles(write(tmp_path, "b.srt", "")) == read_subtitles(write(tmp_path, "b.vtt", "WEBVTT")) == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nfine\n\n2\nno times here\n", 'line 5: here should be times like .*, not "2"'),
        ("a.srt", "\n\n1\n00:00:01,000 --> 00:99:02,000\ntext\n", "line 4: '00:99:02,000' is no time"),
        ("a.srt", "1\n00:00:01,000 -->\ntext\n", "line 2: '' is no time"),
        ("a.srt", "1\n00:00:03,000 --> 00:00:02,000\ntext\n", "line 2: the cue ends at 2 s, before it starts at 3 s"),
        ("a.vtt", "00:01.000 --> 00:02.000\ntext\n", "line 1: a WebVTT file begins with WEBVTT"),
        ("a.vtt", "WEBVTT\n\nname\nname\n00:01.000 --> 00:02.000\n", "line 3: here should be times"),
        ("a.json", "[1,]", "line 1: is no JSON"),
        ("a.json", '"text"', "subtitles should be a list or a mapping of cues"),
        ("a.json", "[{}]", "entry 0: the key 'start' is missing"),
        ("a.json", '{"7": {"start": 1, "text": "a"}}', ", 7: the key 'end' is missing"),
        ("a.json", '[{"start": 1, "end": true, "text": "a"}]', "entry 0: True is no time"),
        ("a.json", '[{"start": -1, "end": 1, "text": "a"}]', "entry 0: -1 is no time"),
        ("a.json", '[{"start": 0, "end": 1, "text": 5}]', "entry 0: 'text' should be text, but is 5"),
        ("a.json", '[{"timestamp": [1], "text": "a"}]', "entry 0: 'timestamp' should be a start and an end"),
        ("a.json", "[5]", "entry 0: a cue should be a mapping"),
        ("a.txt", "", "should end in .srt, .vtt or .json"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, name, content, said):
    path = write(tmp_path, name, content)
    with pytest.raises(OLMoDataError, match=rf"^{path}.*{said}") as caught:
        read_subtitles(path)
    assert "\n" not in str(caught.value)


def test_missing_and_undecodable_files(tmp_path):
    with pytest.raises(OLMoDataError, match="a.srt is missing"):
        read_subtitles(tmp_path / "a.srt")
    (tmp_path / "b.srt").write_bytes(SRT.encode() + b"\xff\xfe")
    with pytest.raises(OLMoDataError, match="line 13: is not UTF-8 text"):
        read_subtitles(tmp_path / "b.srt")


def test_subtitles_of_a_clip():
    """Times count from the clip's start; cues that only touch it are not heard. Seen to fail with `>=`."""
    cues = {(0.0, 2.0): "before", (1.0, 3.0): "into", (4.0, 5.0): "in", (5.0, 9.0): "out of", (6.0, 7.0): "after"}
    assert rebased(cues, 2.0, 6.0) == {(0.0, 1.0): "into", (2.0, 3.0): "in", (3.0, 4.0): "out of"}
    assert rebased(cues, 5.5) == {(0.0, 3.5): "out of", (0.5, 1.5): "after"}


def test_the_preprocessor_takes_them(tmp_path):
    """The published vector: what is more than a second away from every frame is left out."""
    cues = read_subtitles(write(tmp_path, "a.srt", SRT.replace("01:00:02,300", "00:00:02,300").replace("01:00:03", "00:00:03")))
    pre = VideoPreprocessor(VideoPreprocessorConfig(subtitle_mode="frame_1"), PixelConfig(size=(28, 42)), TOK)
    assert TOK.decode(pre.subtitle_tokens(cues, [0, 0.5, 1.2])) == "subtitle\n0.0 - 0.4 hello\n2.0 - 3.0 near by & by\n"
