"""Annotation files: what is read, and the sentence about every kind of mistake."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from olmo.data.annotations import Entry, read_csv, read_json, read_json_list, read_jsonl, read_lines, read_parquet, unique
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


def test_duplicate_ids():
    entries = [Entry({"id": "a"}, "f, line 1"), Entry({"id": "a"}, "f, line 2")]
    with pytest.raises(OLMoDataError, match="f, line 2: the id 'a' stands already at f, line 1"):
        list(unique(entries, "id"))
    with pytest.raises(OLMoDataError, match="f, line 3: the key 'id' is missing; there is name"):
        list(unique([Entry({"name": "a"}, "f, line 3")], "id"))
