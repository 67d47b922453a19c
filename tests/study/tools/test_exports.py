"""Exports are what other trainers load: TRL is really asked, the other two forms are compared with their documents."""

import json
from pathlib import Path

import datasets
import numpy as np
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
    Response(f"{query.id}/{k}", query.id, "base", text)
    for query in QUERIES
    for k, text in enumerate(("<script>é", "no"))
)
PAIRS = tuple(Pair(query.id, f"{query.id}/0", f"{query.id}/1", "good", "bad") for query in QUERIES)
ROWS = (QUERIES, RESPONSES, PAIRS)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for query in QUERIES:
        for number, path in enumerate(query.media):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 64), (90 * number, 200, 0)).save(tmp_path / path)
    return tmp_path


@pytest.mark.slow  # importing TRL takes seconds
def test_trl_takes_the_file_as_it_is(tmp_path, media):
    from trl.data_utils import is_conversational
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    from mmrlhf_study.miniworld import miniature

    exports.write_trl(tmp_path / "trl.parquet", *ROWS, media)
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "trl.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names == ["prompt", "chosen", "rejected", "images"]
    assert all(is_conversational(row) for row in loaded)
    assert loaded[0]["chosen"] == [{"role": "assistant", "content": "<script>é"}]
    assert [len(row["images"]) for row in loaded] == [1, 2, 2, 0]
    assert np.asarray(loaded[1]["images"][1])[0, 0].tolist() == [90, 200, 0]
    processor = miniature.build_processor("llava_onevision", ["what", "is", "it", "changed", "moves", "?"])
    batch = DataCollatorForVisionPreference(processor)([loaded[0], loaded[1]])
    assert batch["input_ids"].shape[0] == 4  # two chosen, two rejected
    assert int((batch["input_ids"] == processor.image_token_id).any(-1).sum()) == 4


def test_ms_swift_rows(media):
    rows = list(exports.swift_rows(*ROWS, "m"))
    assert rows[0] == {
        "messages": [
            {"role": "user", "content": "<image>what is it ?"},
            {"role": "assistant", "content": "<script>é"},
        ],
        "rejected_response": "no",
        "images": ["m/long/1.png"],
    }
    assert rows[1]["messages"][0]["content"] == "<image><image>what changed ?"
    assert rows[1]["images"] == ["m/a/1.png", "m/a/2.png"]
    assert (rows[2]["messages"][0]["content"], rows[2]["videos"]) == ("<video>what moves ?", ["m/v"])
    assert "images" not in rows[2]
    assert rows[3].keys() == {"messages", "rejected_response"}


def test_llama_factory_rows_and_index(tmp_path, media):
    exports.write_all(tmp_path / "out", *ROWS[:2], PAIRS[:3], media)
    index = storage.read_json(tmp_path / "out/dataset_info.json")["mm_rlhf"]
    rows = [json.loads(line) for line in (tmp_path / "out" / index["file_name"]).read_text().splitlines()]
    columns = index["columns"]
    assert index["formatting"] == "sharegpt"
    assert index["ranking"] is True
    for row, query in zip(rows, QUERIES, strict=False):
        assert set(columns.values()) == row.keys()
        marks = row[columns["messages"]][0]["value"]
        assert marks.count("<image>") == len(row[columns["images"]])
        assert marks.count("<video>") == len(row[columns["videos"]]) == (query.modality == "video")
        assert all(
            Path(path).is_file() for path in [*row["images"], *(frame for clip in row["videos"] for frame in clip)]
        )
        assert (row["chosen"], row["rejected"]) == (
            {"from": "gpt", "value": "<script>é"},
            {"from": "gpt", "value": "no"},
        )
    assert (
        datasets.load_dataset(
            "json", data_files=str(tmp_path / "out/llama_factory.jsonl"), split="train", cache_dir=str(tmp_path / "c")
        ).num_rows
        == 3
    )


def test_the_published_form_of_an_export_reads_back(tmp_path, media):
    exports.write_all(tmp_path / "out", *ROWS[:2], PAIRS[:3], media)
    found = published.read(tmp_path / "out/dpo_pairs.jsonl", media)
    assert [(query.id, query.prompt, query.media) for query in found.queries] == [
        (q.id, q.prompt, q.media) for q in QUERIES[:3]
    ]
    assert [(pair.chosen_reason, pair.rejected_reason) for pair in found.pairs] == [("good", "bad")] * 3
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    exports.write_all(tmp_path / "out", *ROWS[:2], PAIRS[:3], media)
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
