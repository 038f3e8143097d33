"""Annotation files: what is read, and the sentence about every kind of mistake."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from olmo.data.annotations import (
    Entry,
    having,
    one_file,
    read_csv,
    read_json,
    read_json_list,
    read_jsonl,
    read_lines,
    read_lists,
    read_parquet,
    unique,
)
from olmo.exceptions import OLMoDataError

ROWS = [{"id": "a", "n": 1, "options": ["x", "y"]}, {"id": "b", "n": 2, "options": []}]


def test_every_format_gives_the_same_entries(tmp_path):
    (tmp_path / "f.json").write_text('[{"id": "a", "n": 1, "options": ["x", "y"]}, {"id": "b", "n": 2, "options": []}]')
    (tmp_path / "f.jsonl").write_text('{"id": "a", "n": 1, "options": ["x", "y"]}\n\n{"id": "b", "n": 2, "options": []}\n')
    (tmp_path / "f.csv").write_text('\ufeffid,n\na,1\n"b",2\n', encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    for entries in (read_json_list(tmp_path / "f.json"), read_jsonl(tmp_path / "f.jsonl"), read_parquet(tmp_path / "f.parquet")):
        assert list(entries) == ROWS
    assert [(e.need("id", str), e.need("n", int)) for e in read_csv(tmp_path / "f.csv")] == [("a", 1), ("b", 2)]
    assert [e.where for e in read_jsonl(tmp_path / "f.jsonl")] == [f"{tmp_path}/f.jsonl, line {n}" for n in (1, 3)]


@pytest.mark.parametrize(
    ("values", "key", "kind", "sentence"),
    [
        ({"a": 1, "b": 2}, "q", str, "f, line 3: the key 'q' is missing; there is a, b"),
        ({"q": None}, "q", str, "the key 'q' is missing"),
        ({"q": 5}, "q", str, "f, line 3: 'q' should be text, but is 5"),
        ({"q": "two"}, "q", int, "'q' should be a whole number, but is \"two\""),
        ({"q": "1.5"}, "q", int, "'q' should be a whole number"),
        ({"q": float("nan")}, "q", int, "'q' should be a whole number, but is NaN"),
        ({str(i): i for i in range(30)}, "q", str, "is missing; there is 0, 1, .*, 19, ...$"),
        ({"q": True}, "q", float, "'q' should be a number, but is true"),
        ({"q": float("nan")}, "q", float, "'q' should be a number, but is NaN"),
        ({"q": "inf"}, "q", int, "'q' should be a whole number, but is \"inf\""),
        ({"q": {"a": 1}}, "q", list, "'q' should be a list, but is"),
        ({"q": [1]}, "q", dict, "'q' should be a mapping, but is"),
    ],
)
def test_wrong_values(values, key, kind, sentence):
    with pytest.raises(OLMoDataError, match=sentence):
        Entry(values, "f, line 3").need(key, kind)


def test_places_inside_an_entry():
    entry = Entry({"qa": [{"q": 1}], "t": ["a", 2]}, "f, line 3")
    with pytest.raises(OLMoDataError, match=r"f, line 3, qa\[0\]: 'q' should be text, but is 1"):
        entry.need("qa", list)[0].need("q", str)
    with pytest.raises(OLMoDataError, match=r"f, line 3: 't\[1\]' should be text, but is 2"):
        entry.texts("t")
    assert entry.optional("x", str) is None and entry.optional("x", int, 4) == 4


@pytest.mark.parametrize(
    ("read", "content", "sentence"),
    [
        (read_json, b'{"a": 1,\n "b"}', "f, line 2: is no JSON"),
        (read_json_list, b'{"a": 1}', "f should be a list of mappings"),
        (read_jsonl, b'{"a": 1}\n{"a": \n', "f, line 2: is no JSON"),
        (read_jsonl, b'{"a": 1}\n[1]\n', "f, line 2: should be a mapping"),
        (read_jsonl, b'{"a": 1}\n{"a": "\xe4"}\n', "f, line 2: is not UTF-8"),
        (read_lists, b'["a", "b"]\n[1]\n', "f, line 2: has 1 values, but the first line names 2 columns"),
        (read_lists, b'["a", "b"]\n{"a": 1}\n', "f, line 2: should be a list"),
        (read_csv, b"a,b\n1,2\n1\n", "f, line 3: has fewer columns than the header"),
        (read_csv, b"a,b\n1,2,3\n", "f, line 2: has more columns than the header"),
        (read_parquet, b"PAR1 but not really", "f is no parquet file"),
    ],
)
def test_broken_files(tmp_path, read, content, sentence):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(OLMoDataError, match=sentence):
        list(read(tmp_path / "f"))
    with pytest.raises(OLMoDataError, match="g is missing"):
        list(read(tmp_path / "g"))


def test_only_line_feeds_end_a_line(tmp_path):
    """Seen to fail with `splitlines`, which also cuts sentences at U+2028, U+0085 and others."""
    said = "one\u2028two\x85three"
    (tmp_path / "f.jsonl").write_bytes(f'{{"a": "{said}"}}\r\n{{"a": "b"}}'.encode())
    assert [(e["a"], e.where[-1]) for e in read_jsonl(tmp_path / "f.jsonl")] == [(said, "1"), ("b", "2")]
    (tmp_path / "f.csv").write_text(f'a,b\n{said},1\n"x\ny",2\n', encoding="utf-8")
    assert [(e["a"], e["b"]) for e in read_csv(tmp_path / "f.csv")] == [(said, "1"), ("x\ny", "2")]
    (tmp_path / "f.txt").write_text(f"{said}\n\nnext", encoding="utf-8")
    assert read_lines(tmp_path / "f.txt") == [said, "next"]


def test_entries_that_lack_keys_say_what_there_is_instead(tmp_path):
    """All of it at once, for files whose layout was never seen: `need` alone would tell one key after the other."""
    entries = [Entry({"q": 1, "a": None}, "f, line 1"), Entry({"q": 1, "text": 2}, "f, line 2")]
    assert next(having(entries, "q", "a")) == entries[0]
    with pytest.raises(OLMoDataError, match="^f, line 2: should have the keys q, a, gt, but lacks a, gt; there is q, text$"):
        list(having(entries[1:], "q", "a", "gt"))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    assert list(read_parquet(tmp_path / "f.parquet", ["n"])) == [{"n": 1}, {"n": 2}]
    with pytest.raises(OLMoDataError, match="f.parquet should have the columns n, q, but lacks q; there is id, n, options$"):
        list(read_parquet(tmp_path / "f.parquet", ["n", "q"]))


def test_duplicate_ids():
    entries = [Entry({"id": "a"}, "f, line 1"), Entry({"id": "a"}, "f, line 2")]
    with pytest.raises(OLMoDataError, match="f, line 2: the id 'a' stands already at f, line 1"):
        list(unique(entries, "id"))
    with pytest.raises(OLMoDataError, match="f, line 3: the key 'id' is missing; there is name"):
        list(unique([Entry({"name": "a"}, "f, line 3")], "id"))


@pytest.mark.parametrize("value", [None, ["a"], 1.5])
def test_ids_that_are_none(value):
    with pytest.raises(OLMoDataError, match="f, line 1: (the key 'id' is missing|'id' should be text)"):
        list(unique([Entry({"id": value}, "f, line 1")], "id"))


def test_only_line_feeds_end_lines(tmp_path):
    """Seen to fail with `str.splitlines`, for which the separators of paragraphs that texts from the web contain are line ends."""
    text = "a\u2028b\x85c"
    (tmp_path / "f.jsonl").write_text(f'{{"q": "{text}"}}\n{{"q": "d"}}\n', encoding="utf-8")
    assert [e["q"] for e in read_jsonl(tmp_path / "f.jsonl")] == [text, "d"]
    (tmp_path / "f.csv").write_text(f'q,n\n{text},1\n"two\nlines",2\n', encoding="utf-8")
    assert [(e["q"], e["n"], e.where[-6:]) for e in read_csv(tmp_path / "f.csv")] == [(text, "1", "line 2"), ("two\nlines", "2", "line 4")]
    (tmp_path / "f.txt").write_text(f"{text}\n\nd\r\n", encoding="utf-8")
    assert read_lines(tmp_path / "f.txt") == [text, "d"]


def test_lists_with_named_columns(tmp_path):
    (tmp_path / "f").write_text('["id", "n"]\n["a", 1]\n\n["b", 2]\n')
    assert [(dict(e), e.where[-6:]) for e in read_lists(tmp_path / "f")] == [
        ({"id": "a", "n": 1}, "line 2"),
        ({"id": "b", "n": 2}, "line 4"),
    ]


def test_one_file_of_a_pattern(tmp_path):
    with pytest.raises(OLMoDataError, match=r"should have one file \*.json, but there is none"):
        one_file(tmp_path, "*.json")
    (tmp_path / "a.json").touch()
    assert one_file(tmp_path, "*.json") == tmp_path / "a.json"
    (tmp_path / "b.json").touch()
    with pytest.raises(OLMoDataError, match="but there is a.json, b.json"):
        one_file(tmp_path, "*.json")
