"""Files of prompts, as people have them."""

import csv
import json

import pytest

from imagen_diffusers.evaluation.prompts import digest, read_prompts


def test_a_prompt_a_line(tmp_path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a red cube\n\n  a blue, round sphere \n")
    assert read_prompts(path) == [{"prompt": "a red cube"}, {"prompt": "a blue, round sphere"}]


def test_metadata_of_an_image_folder(tmp_path) -> None:
    path = tmp_path / "metadata.jsonl"
    rows = [{"file_name": "0.png", "text": "a red cube"}, {"file_name": "1.png", "text": "ein grüner Würfel"}]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_prompts(path) == [{**row, "prompt": row["text"]} for row in rows]
    assert read_prompts(path, "file_name")[1]["prompt"] == "1.png"


def test_drawbench_as_it_is_published(tmp_path) -> None:
    path = tmp_path / "DrawBench.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerows([["Prompts", "Category"], ["A red colored car, and\na black dog.", "Colors"], ["One cat.", "Counting"]])
    read = read_prompts(path)
    assert [row["prompt"] for row in read] == ["A red colored car, and\na black dog.", "One cat."]
    assert read[1]["Category"] == "Counting"


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("prompts.txt", " \n\n", None, "holds no prompt; give a prompt a line"),
        ("metadata.jsonl", "", None, "holds no prompt"),
        ("table.csv", "Prompts,Category\n", None, "holds no prompt"),
        (
            "table.csv",
            "words,kind\na cat,x\n",
            None,
            "none of the columns prompt, Prompts, text, caption; it has words, kind: name the one",
        ),
        ("table.csv", "words,kind\na cat,x\n", "text", 'no column "text"; it has words, kind'),
        ("metadata.jsonl", '{"text": "a cat"}\n{"text": ""}\n', None, "row 2 of"),
        ("metadata.jsonl", '{"text": "a cat"}\n{"prompt": "a dog"}\n', None, "row 2 of"),
        ("metadata.jsonl", '{"text": 3}\n', None, "has 3 as its"),
        ("metadata.jsonl", '{"text": "a cat"\n', None, "line 1 of"),
        ("metadata.jsonl", '"a cat"\n', None, "is no object"),
        ("metadata.jsonl", '{"text": "a cat"}\n{"text": "a \\ud800 cat"}\n', None, "row 2 of .* holds half a character"),
        ("prompts.json", '["a cat"]', None, r"is a .json, which is not read; give a prompt a line, a .jsonl"),
        ("table.csv", "prompt,kind\na cat,x\na cat, red,x\n", None, "row 2 of .* put a prompt that holds a comma in quotes"),
        ("table.csv", f'prompt,kind\n"a cat{"," * 140_000}', None, "field larger than field limit.* a quote that is not closed"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, text, column, message) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_prompts(path, column)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_table_with_tabs(tmp_path) -> None:
    path = tmp_path / "prompts.tsv"
    path.write_text("Prompts\tkind\na cat, red\tx\n")
    assert read_prompts(path) == [{"Prompts": "a cat, red", "kind": "x", "prompt": "a cat, red"}]


def test_a_mark_before_the_text_and_separators_within_it(tmp_path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\u2028sits\r\na dog\x85runs", encoding="utf-8-sig", newline="")
    assert [row["prompt"] for row in read_prompts(path)] == ["a cat\u2028sits", "a dog\x85runs"]
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a cat\u2028sits"}\r\n{"prompt": "a dog\x85runs"}', encoding="utf-8-sig", newline="")
    assert [row["prompt"] for row in read_prompts(path)] == ["a cat\u2028sits", "a dog\x85runs"]


def test_an_image_is_no_file_of_prompts(tmp_path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_prompts(tmp_path / "image.png")


def test_rows_have_a_digest() -> None:
    one, other = {"prompt": "a cat", "kind": 1}, {"kind": 1, "prompt": "a cat"}
    assert digest([one]) == digest([other]) != digest([one, other]) != digest([{**one, "kind": 2}, other])
