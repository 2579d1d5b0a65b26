import csv
import gzip
import json
import os

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import TEXTS

from hf_ftedit.data.readers import read_edits
from hf_ftedit.data.records import EditRecord, NeighborhoodPrompt, PortabilityPrompt
from hf_ftedit.data.sources import read_rows, read_texts
from hf_ftedit.errors import EditError

GOOD = '{"prompt": "A is", "target_new": "b"}'
ROWS = [
    {"edit_id": "a", "prompt": 'Åse said "no", then', "target_new": "yes"},
    {"edit_id": "b", "prompt": "Line one\nline 2 is", "target_new": "three", "paraphrase_prompts": ["One", "[2] is"]},
]
RECORDS = [
    EditRecord("a", 'Åse said "no", then', "yes"),
    EditRecord("b", "Line one\nline 2 is", "three", paraphrase_prompts=("One", "[2] is")),
]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def as_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_text_formats(tmp_path, bom, ending):
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode().replace(b"\n", ending)
    whole = json.dumps(ROWS, ensure_ascii=False, indent=1).encode().replace(b"\n", ending)
    as_csv(tmp_path / "plain.csv", ROWS)
    table = (tmp_path / "plain.csv").read_bytes()
    for name, content in (("x.jsonl", lines), ("x.JSON", whole), ("x.csv", table)):
        assert read_edits(write(tmp_path, name, bom + content)) == RECORDS
        assert read_edits(str(tmp_path / name), format="native", limit=1) == RECORDS[:1]


def test_parquet_and_dataset(tmp_path):
    rows = [row | {"n": 1984.0, "portability_prompts": None} for row in ROWS]
    as_parquet(tmp_path / "x.parquet", [rows[0] | {"paraphrase_prompts": None}, rows[1]])
    assert read_edits(tmp_path / "x.parquet") == RECORDS
    assert read_edits(datasets.Dataset.from_list([rows[0] | {"paraphrase_prompts": None}, rows[1]])) == RECORDS
    with pytest.raises(EditError, match=r"^the source is an object with the keys \['train'\]; .* a dataset's split"):
        read_edits(datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS[:1])))


def test_json_in_the_cells_of_a_table(tmp_path):
    near, further = [{"prompt": "C is", "target": None}], [{"prompt": "D is", "answers": ["e", "f"]}]
    row = {"prompt": "[A] is", "target_new": "[b]", "neighborhood_prompts": near, "portability_prompts": further}
    as_csv(tmp_path / "x.csv", [row])
    probes = (NeighborhoodPrompt("C is"),), (PortabilityPrompt("D is", ("e", "f")),)
    assert read_edits(tmp_path / "x.csv") == [EditRecord("0", "[A] is", "[b]", None, None, (), *probes)]


def test_spaces_after_the_commas_of_a_csv_file(tmp_path):
    path = write(tmp_path, "x.csv", 'prompt, target_new, subject\nWhere is Pori? In, Finland,\n"A, b",  c, A\n')
    assert read_edits(path) == [EditRecord("0", "Where is Pori? In", "Finland"), EditRecord("1", "A, b", "c", "A")]


@pytest.mark.parametrize(
    "table",
    [
        *(
            "prompt;target_new\nA, b is;c\n",
            'prompt\ttarget_new\n"A, b is"\tc\n',
            ' Prompt ,Target new\n"A, b is",c\n',
        ),
        "prompt;target_new;;\nA, b is;c;;\n;;;\n",
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.CSV.gz"])
def test_tables_as_spreadsheets_write_them(tmp_path, table, name):
    content = gzip.compress(table.encode()) if name.endswith(".gz") else table
    assert read_edits(write(tmp_path, name, content)) == [EditRecord("0", "A, b is", "c")]


def test_lines_before_the_header_that_hold_nothing_are_no_header(tmp_path):
    path = write(tmp_path, "x.csv", "sep=;\n\nprompt;target_new\nA is;b\n")
    assert read_edits(path) == [EditRecord("0", "A is", "b")]
    with pytest.raises(EditError, match=r"^x\.csv line 4: has more cells"):
        read_edits(write(tmp_path, "x.csv", "sep=;\n\nprompt;target_new\nA is;b;c\n"))


def test_a_cell_may_hold_several_rephrases(tmp_path):
    path = write(tmp_path, "x.csv", "src,alt,answers,rephrase\n" + 'A?,b,c,"[""D?"", ""E?""]"\n')
    assert read_edits(path)[0].paraphrase_prompts == ("D?", "E?")


def test_rows_of_a_table_without_any_text_are_no_edits(tmp_path):
    path = write(tmp_path, "x.csv", "prompt,target_new,subject\nA is,b,\n,,\n , ,\nC is,d,\n,,\n")
    records = [EditRecord("0", "A is", "b"), EditRecord("1", "C is", "d")]
    assert read_edits(path) == records
    table = pd.DataFrame({"prompt": ["A is", None, "C is"], "target_new": ["b", float("nan"), "d"]})
    assert read_edits(table) == records
    with pytest.raises(EditError, match=r"^y\.csv holds no rows"):
        read_edits(write(tmp_path, "y.csv", "prompt,target_new\n,\n"))


def test_compressed_json(tmp_path):
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    assert read_edits(write(tmp_path, "x.jsonl.gz", gzip.compress(lines))) == RECORDS
    assert read_edits(write(tmp_path, "x.json.gz", gzip.compress(json.dumps(ROWS).encode()))) == RECORDS
    with pytest.raises(EditError, match="no such file"):  # and no dataset of the Hub
        read_edits("user/edits.jsonl.gz")


@pytest.mark.parametrize("format", ["numpy", "torch", "pandas", "arrow"])
def test_datasets_in_any_format_are_read_as_without_one(format):
    rows = [{"paraphrase_prompts": [], **row, "n": 7} for row in ROWS]
    assert read_edits(datasets.Dataset.from_list(rows).with_format(format)) == RECORDS


def test_values_of_numpy_and_pandas_are_read_as_those_of_a_file():
    rows = [row | {"edit_id": np.str_(row["edit_id"]), "target_true": pd.NA, "subject": np.nan} for row in ROWS]
    rows[1]["paraphrase_prompts"] = np.array(rows[1]["paraphrase_prompts"], dtype=object)
    assert read_edits(rows) == RECORDS
    assert read_edits(pd.DataFrame(rows)) == RECORDS
    years = pd.DataFrame({"Prompt": ["A is of", "B is of"], "target_new": pd.array([1984, 7], dtype="Int64")})
    years["portability_prompts"] = [np.array([{"prompt": "C", "answers": np.array(["d"])}], dtype=object), pd.NaT]
    first, second = read_edits(years)
    assert (first.target_new, second.target_new) == ("1984", "7")
    assert first.portability_prompts == (PortabilityPrompt("C", ("d",)),) and not second.portability_prompts
    assert read_edits([{"prompt": "A is of", "target_new": np.int64(1984)}]) == [EditRecord("0", "A is of", "1984")]


def test_a_name_that_stands_twice_in_an_object_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"prompt": "A is", "target_new": "x"}\n{"prompt": "B", "a": {"b": 1, "b": 2}}')
    with pytest.raises(EditError, match="x.jsonl line 2: is not usable JSON: 'b' stands twice in an object; keep one"):
        read_edits(tmp_path / "x.jsonl")


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.jsonl").write_text('{"prompt": "A is", "target_new": "x"}')
    assert read_edits("~/x.jsonl") == [EditRecord("0", "A is", "x")]


def test_hub_dataset(monkeypatch):
    asked = []

    def load_dataset(path, split):
        asked.append((path, split))
        if path == "gone/away":
            raise datasets.exceptions.DatasetNotFoundError("Dataset 'gone/away' doesn't exist\non the Hub")
        if path == "half/made":
            raise datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
        return datasets.Dataset.from_list([{"prompt": "A is", "target_new": "b", "paraphrase_prompts": '["C is"]'}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    expected = [EditRecord("0", "A is", "b", paraphrase_prompts=("C is",))]
    assert read_edits("user/name") == read_edits("user/name:validation") == expected
    assert asked == [("user/name", "train"), ("user/name", "validation")]
    with pytest.raises(EditError, match="no Hub dataset that loads: An error occurred while generating"):
        read_edits("half/made")
    with pytest.raises(EditError, match="^gone/away: no such file, and no Hub dataset that loads: Dataset 'gone"):
        read_edits("gone/away")


@pytest.mark.parametrize("name", ["nope/edits.jsonl", "edits.csv", "nope", "a/b/c", "", "a\x00b", "x" * 5000, "[{}]"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name):
    with pytest.raises(EditError, match="no such file; check the path") as raised:
        read_edits(name)
    assert len(str(raised.value)) < 300


def test_a_directory_and_an_unknown_suffix(tmp_path):
    with pytest.raises(EditError, match=r": is a directory; give a file in it \(.json, .jsonl, .csv, .*, .parquet\)$"):
        read_edits(tmp_path)
    with pytest.raises(EditError, match="^x.txt: the suffix '.txt' is not known; use one of .json, .jsonl, .csv"):
        read_edits(write(tmp_path, "x.txt", "{}"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "", "x.json holds no rows"),
        ("x.json", "[]", "x.json holds no rows"),
        ("x.jsonl", "\n \n", "x.jsonl holds no rows"),
        ("x.csv", "", "x.csv holds no rows"),
        ("x.csv", "prompt,target_new\n", "x.csv holds no rows"),
        ("x.json", f"[{GOOD},\n{GOOD[:20]}", "x.json: is not valid JSON (Unterminated string starting at at line 2"),
        ("x.json", f"{GOOD}\n{GOOD}", "x.json: is not valid JSON (Extra data at line 2, column 1); if it has one"),
        ("x.jsonl", f"{GOOD}\n\n{GOOD[:-2]}", "x.jsonl line 3: is not valid JSON (Unterminated string"),
        ("x.jsonl", f"[{GOOD}]", "x.jsonl line 1: is a list; each row must be an object"),
        ("x.jsonl", f"[\n{GOOD}]", "x.jsonl line 1: is not valid JSON (Expecting value at column 2); give one JSON o"),
        ("x.jsonl", f"{GOOD}\nnull", "x.jsonl line 2: is null; each row must be an object"),
        ("x.json", f"[{GOOD}, 3]", "x.json row 2: is of type int; each row must be an object"),
        ("x.json", f'{{"n": 1, "edits": [{GOOD}]}}', "the top level is an object whose list stands under 'edits'; ma"),
        ("x.json", GOOD, "x.json: the top level is an object; make it a list of rows"),
        ("x.json", '"text"', "x.json: the top level is text; make it a list of rows"),
        ("x.json", "[" * 200_000, "x.json: is not usable JSON: maximum recursion depth exceeded"),
        ("x.jsonl", '{"prompt": ' + "[" * 200_000, "x.jsonl line 1: is not usable JSON: maximum recursion depth"),
        ("x.json", "[" + "9" * 5000 + "]", "x.json: is not usable JSON: Exceeds the limit"),
        ("x.json", b'[{"prompt":\n"Malm\xf6"}]', "x.json line 2: is not UTF-8 (byte 0xf6 at position 5); save the fi"),
        ("x.jsonl", b'{}\n{"prompt": "Malm\xf6"}', "the fields [] are of no known format"),
        ("x.jsonl", GOOD.encode() + b'\n"Malm\xf6"', "x.jsonl line 2: is not UTF-8 (byte 0xf6 at position 5)"),
        ("x.csv", b"prompt,target_new\nMalm\xf6 is,b\n", "x.csv line 2: is not UTF-8 (byte 0xf6 at position 4)"),
        ("x.jsonl", GOOD.encode("utf-16"), "x.jsonl line 1: is not UTF-8 (byte 0xff at position 0)"),
        ("x.csv", "prompt,target_new\nA, b, c\n", "x.csv line 2: has more cells than the header; put text"),
        ("x.csv", 'prompt,target_new\n"A is,b\nC is,d\n', "x.csv line 3: is not valid CSV (unexpected end of data)"),
        ("x.csv", "prompt,prompt\nA,b\n", "x.csv line 1: the header names a column twice: ['prompt', 'prompt']"),
        ("x.csv", "prompt;Prompt\nA;b\n", "x.csv line 1: the header names a column twice: ['prompt', 'prompt']"),
        ("x.csv", "prompt;target_new\nA;b;c\n", "has more cells than the header; put text that has a semicolon in"),
        ("x.csv", "prompt|target_new\nA|b\n", "x.csv line 2: the fields ['prompt|target_new'] are of no known format"),
        ("x.jsonl.gz", b"no gzip", "x.jsonl.gz: cannot be read: Not a gzipped file (b'no'); check the file"),
        ("x.jsonl.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "x.jsonl.gz: cannot be read: Compressed file"),
        ("x.csv", "prompt,target_new\nA is,\n", "x.csv line 2 (edit_id '0'): target_new is missing"),
        ("x.csv", "prompt,target_new\nA is\n", "x.csv line 2 (edit_id '0'): target_new is missing"),
        ("x.csv", "prompt,target_new\nA is," + "b" * 200_000, "x.csv line 2: is not valid CSV (field larger than"),
        ("x.csv", "prompt,target_new,wordings\nA,b,\"['c']\"\n", "x.csv line 2 column 'wordings': is not valid JSON"),
        ("x.parquet", b"PAR1 and nothing more", "x.parquet: is not valid Parquet ("),
        ("x.parquet", b"", "x.parquet: is not valid Parquet ("),
    ],
)
def test_a_hostile_file_gives_one_line(tmp_path, name, content, message):
    with pytest.raises(EditError) as raised:
        read_edits(write(tmp_path, name, content))
    text = str(raised.value)
    assert message in text and "\n" not in text and len(text) < 500


@pytest.mark.parametrize("source", [None, 3, b"edits.jsonl", {"prompt": "A is", "target_new": "b"}])
def test_what_is_no_source(source):
    with pytest.raises(EditError, match="^the source is .*; give a file, a Hub dataset id"):
        read_edits(source)


def test_an_empty_list_and_rows_that_are_no_objects():
    with pytest.raises(EditError, match="^the source holds no rows"):
        read_edits([])
    with pytest.raises(EditError, match="^row 2: is text; each row must be an object"):
        read_edits([ROWS[0], "A is"])


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that fails when it is read")
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.parquet"])
def test_a_file_that_cannot_be_read(tmp_path, name):
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(EditError) as raised:
        read_edits(tmp_path / name)
    assert str(raised.value).startswith(f"{name}: ") and "\n" not in str(raised.value)


def test_rows_stream(tmp_path):
    path = write(tmp_path, "x.jsonl", f"{GOOD}\nbroken")
    assert next(read_rows(path)) == ("x.jsonl line 1", json.loads(GOOD))
    assert read_edits(path, limit=1) == [EditRecord("0", "A is", "b")]


def as_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")


def as_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


WRITERS = {"json": as_json, "jsonl": as_jsonl, "csv": as_csv, "parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "row",
    [
        {"Corpus": "C4", "Text": None},
        {"text": None, "url": "https://example.org", "number": 7},
        {"TEXT": None},
        {"sentence": None},
    ],
)
def test_texts_of_a_file(tmp_path, suffix, row):
    texts = [" A text, with “quotes”", "Another\nof two lines", "[1] looks like a list"]
    path = tmp_path / f"texts.{suffix}"
    WRITERS[suffix](path, [{name: text if value is None else value for name, value in row.items()} for text in texts])
    assert read_texts(path) == read_texts(str(path)) == texts


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_texts_of_a_file_without_columns(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"texts.{suffix}", ["One", "Two"])
    assert read_texts(tmp_path / f"texts.{suffix}") == ["One", "Two"]


def test_texts_of_lists_and_datasets():
    assert read_texts(TEXTS) == read_texts(iter(TEXTS)) == TEXTS
    assert read_texts(datasets.Dataset.from_dict({"id": ["a"], "text": ["One"]})) == ["One"]
    assert read_texts([{"number": 1, "sentence": "One"}, "Two"]) == ["One", "Two"]


def test_texts_in_the_form_of_the_measured_corpora(shared_dir):
    path = shared_dir / "data" / "perplexity_texts.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert rows and set(rows[0]) == {"Corpus", "Text"}
    assert read_texts(path) == [row["Text"] for row in rows]


@pytest.mark.parametrize(
    "row",
    [
        *({"Corpus": "C4", "Text": text} for text in ("", " ", None, 7)),
        {"one": "x", "two": "y"},  # which one is meant?
        {"number": 7},
        {},
        "",
        " \n",
        None,
        7,
        ["x"],
    ],
)
def test_a_row_without_a_text_is_an_error_that_names_the_place(tmp_path, row):
    good = {"Corpus": "C4", "Text": "x"}
    with pytest.raises(EditError, match=r"^row 2: holds no text; give it in a column named text$"):
        read_texts([good, row])
    as_jsonl(tmp_path / "x.jsonl", [good, row, good])
    with pytest.raises(EditError, match=r"^x\.jsonl line 2: holds no text"):
        read_texts(tmp_path / "x.jsonl")


@pytest.mark.parametrize("suffix, place", [("csv", "line 3"), ("parquet", "row 2")])
@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_cell_is_an_error_that_names_the_place(tmp_path, suffix, place, blank):
    path = tmp_path / f"x.{suffix}"
    WRITERS[suffix](path, [{"Corpus": "C4", "Text": text} for text in ("One", blank)])
    with pytest.raises(EditError, match=rf"^x\.{suffix} {place}: holds no text"):
        read_texts(path)


@pytest.mark.parametrize(
    "source, message",
    [
        ("missing.jsonl", r"'missing.jsonl': no such file"),
        ("texts.txt", r"'texts.txt': no such file"),
        ([], "there are no texts"),
        ({"text": ["x"]}, "the source is an object"),
        (7, "the source is"),
    ],
)
def test_what_is_no_source_of_texts_is_an_error(source, message):
    with pytest.raises(EditError, match=message):
        read_texts(source)
