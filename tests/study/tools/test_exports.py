"""Exports are what other trainers load: TRL and `datasets` are really asked, the others are held to their rules."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmrlhf_core.data import published, storage
from mmrlhf_core.data.records import Pair, Query, Response
from mmrlhf_study.tools import exports

QUERIES = (
    Query("q1", "what is it ?", "image", ("long/1.png",), "long"),
    Query("q2", "what changed ?", "images", ("a/1.png", "a/2.png"), "short"),
    Query("q3", "what moves ?", "video", ("v/1.png", "v/2.png"), "video"),
    Query("q4", "who are you ?", "text", ()),
)
RESPONSES = tuple(
    Response(f"{query.id}/{k}", query.id, "base", text) for query in QUERIES for k, text in enumerate(("é <b>", "no"))
)
PAIRS = tuple(Pair(query.id, f"{query.id}/0", f"{query.id}/1", "good", "bad") for query in QUERIES)
ROWS = (QUERIES, RESPONSES, PAIRS)
FILES = ("dpo_pairs.jsonl", "swift.jsonl", "llama_factory.jsonl", "trl.parquet")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for query in QUERIES:
        for number, path in enumerate(query.media):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 64), (90 * number, 200, 0)).save(tmp_path / path)
    return tmp_path


def load(file: Path) -> datasets.Dataset:
    kind = "parquet" if file.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=str(file.parent / "cache"))


@pytest.mark.slow  # importing TRL takes seconds
def test_trl_takes_the_file_as_it_is(tmp_path, media):
    from trl.data_utils import is_conversational
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    from mmrlhf_study.miniworld import miniature

    exports.write_trl(tmp_path / "trl.parquet", *ROWS, media)
    loaded = load(tmp_path / "trl.parquet")
    assert loaded.column_names == ["prompt", "chosen", "rejected", "images"]
    assert all(is_conversational(row) for row in loaded)
    assert loaded[0]["chosen"] == [{"role": "assistant", "content": "é <b>"}]
    assert [len(row["images"]) for row in loaded] == [1, 2, 2, 0]
    assert np.asarray(loaded[1]["images"][1])[0, 0].tolist() == [90, 200, 0]
    processor = miniature.build_processor("llava_onevision", ["what", "is", "it", "changed", "moves", "?"])
    batch = DataCollatorForVisionPreference(processor)([loaded[0], loaded[1]])
    assert batch["input_ids"].shape[0] == 4  # two chosen, two rejected
    assert int((batch["input_ids"] == processor.image_token_id).any(-1).sum()) == 4


def test_older_datasets_know_every_feature_type_of_the_parquet_file(tmp_path):
    exports.write_trl(tmp_path / "trl.parquet", *ROWS, "m")
    features = json.loads(pq.read_schema(tmp_path / "trl.parquet").metadata[b"huggingface"])["info"]["features"]
    assert "List" not in json.dumps(features)  # the type came with datasets 4


def test_every_row_has_every_key_and_a_clip_is_a_list_of_frame_files():
    frames = ["m/v/1.png", "m/v/2.png"]
    swift, factory = list(exports.swift_rows(*ROWS, "m")), list(exports.llama_factory_rows(*ROWS, "m"))
    for rows in (swift, factory):
        assert len({tuple(row) for row in rows}) == 1
        assert [row["images"] for row in rows] == [["m/long/1.png"], ["m/a/1.png", "m/a/2.png"], [], []]
        assert [row["videos"] for row in rows] == [[], [], [frames], []]
    asked = ["<image>what is it ?", "<image><image>what changed ?", "<video>what moves ?", "who are you ?"]
    assert [row["messages"][0] for row in swift] == [{"role": "user", "content": text} for text in asked]
    assert swift[0]["messages"][1:] == [{"role": "assistant", "content": "é <b>"}]
    assert swift[0]["rejected_response"] == "no"
    assert [row["conversations"] for row in factory] == [[{"from": "human", "value": text}] for text in asked]
    assert factory[0]["chosen"] == {"from": "gpt", "value": "é <b>"}
    assert factory[0]["rejected"] == {"from": "gpt", "value": "no"}


@pytest.mark.slow  # files of 16 to 100 MB
@pytest.mark.parametrize("kinds", [(0, 2), (2, 0), (3, 0, 1, 2)])
def test_mixed_media_load_whole_whatever_comes_first(tmp_path, kinds):
    count, long = 11_000, "so many words that one kind of media alone fills the 10 MB whose types are taken " * 8
    rows = [(QUERIES[kind], f"{kind} {number}") for kind in kinds for number in range(count)]
    queries = [replace(query, id=name, prompt=long) for query, name in rows]
    responses = [Response(f"{name}/{k}", name, "base", f"{long}{k}") for _, name in rows for k in (0, 1)]
    pairs = [Pair(name, f"{name}/0", f"{name}/1") for _, name in rows]
    exports.write_all(tmp_path / "out", queries, responses, pairs, "m")
    for file in FILES:
        assert load(tmp_path / "out" / file).num_rows == count * len(kinds), file
    paths = load(tmp_path / "out/swift.jsonl")["images"]
    assert sum(map(len, paths)) == count * sum(len(QUERIES[kind].media) for kind in kinds if kind < 2)


def test_the_index_of_llama_factory_names_columns_and_files_that_exist(tmp_path, media):
    exports.write_all(tmp_path / "out", *ROWS, media)
    index = storage.read_json(tmp_path / "out/dataset_info.json")["mm_rlhf"]
    rows = [json.loads(line) for line in (tmp_path / "out" / index["file_name"]).read_text().splitlines()]
    assert (index["formatting"], index["ranking"]) == ("sharegpt", True)
    for row in rows:
        assert set(index["columns"].values()) == row.keys()
        paths = [*row["images"], *(frame for clip in row["videos"] for frame in clip)]
        assert all(Path(path).is_file() for path in paths)


@pytest.mark.parametrize("mark", ["<image>", "<video>", "<audio>"])
def test_trainers_count_exactly_the_marks_of_the_media(tmp_path, mark):
    queries = [replace(query, prompt=f"is {mark} a word ?") for query in QUERIES]
    responses = [replace(one, text=f"{mark} {one.id}") for one in RESPONSES]
    for row in exports.llama_factory_rows(queries, responses, PAIRS, "m"):
        for answer in (row["chosen"], row["rejected"]):  # LLaMA-Factory counts over the prompt and each answer
            text = row["conversations"][0]["value"] + answer["value"]
            assert [text.count(f"<{name[:-1]}>") for name in ("images", "videos", "audios")] == [
                len(row["images"]), len(row["videos"]), 0
            ]  # fmt: skip
    for row in exports.swift_rows(queries, responses, PAIRS, "m"):
        text = "".join(one["content"] for one in row["messages"]) + row["rejected_response"]
        assert text.count("<image>") + text.count("<video>") + text.count("<audio>") == sum(
            len(row[name]) for name in ("images", "videos")
        )
        assert mark[1:-1] in text.replace(mark, "")  # the word is still there
    exports.write_trl(tmp_path / "trl.parquet", queries, responses, PAIRS, "m")
    assert mark not in json.dumps(pq.read_table(tmp_path / "trl.parquet", columns=["prompt", "chosen"]).to_pylist())
    assert all(mark in row["prompt"] for row in exports.published_rows(queries, responses, PAIRS))


def test_the_published_form_of_an_export_reads_back(tmp_path, media):
    rows = (*ROWS[:2], PAIRS[2::-1])
    exports.write_all(tmp_path / "out", *rows, media)
    found = published.read(tmp_path / "out/dpo_pairs.jsonl", media)
    assert {(query.id, query.prompt, query.media) for query in found.queries} == {
        (q.id, q.prompt, q.media) for q in QUERIES[:3]
    }
    assert [(pair.chosen_reason, pair.rejected_reason) for pair in found.pairs] == [("good", "bad")] * 3
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    exports.write_all(tmp_path / "out", *rows, media)
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
