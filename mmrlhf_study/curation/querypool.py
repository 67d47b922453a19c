"""The query pool: drawn from MiniWorld or read from real files, written once as a folder that later chapters read.

`<folder>/queries.parquet`, `<folder>/rejects.parquet`, and `<folder>/media.json`, which says where the media lie.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Query, Reject
from mmrlhf_study.curation import sources
from mmrlhf_study.curation.sources import Pool, Source
from mmrlhf_study.miniworld import pool as miniworld
from mmrlhf_study.miniworld.questions import question

MINIWORLD, PICTURES, CLIPS = "miniworld", "pictures", "clips"
POOL_SOURCES = (MINIWORLD, *sources.ROW_FORMATS, PICTURES, CLIPS)


def build(
    kind: str,
    folder: str,
    seen: frozenset[str] = frozenset(),
    files: tuple[str, ...] = (),
    media: str = "",
    prompt: str = "",
    turns: str = "context",
    size: int = 0,
    max_reject_share: float = 0.01,
    seed: int = 0,
) -> Pool:
    """Make the pool in `folder`.

    `kind` is `miniworld`, the layout of `files` (`conversations`, `preferences`), or `pictures` / `clips` for a folder
    about which every query asks `prompt`. `turns` says whether the follow-up questions of a dialogue keep the turns
    before them (`context`) or stand `alone`. `size` is the number of queries to draw, or of rows to read at most.
    """
    if kind not in POOL_SOURCES:
        raise ValueError(f"No pool of kind {kind!r}. Give one of {', '.join(POOL_SOURCES)}.")
    rejects, place = Path(folder) / "rejects.parquet", f"{folder}/media" if kind == MINIWORLD else media
    if kind == MINIWORLD:
        pool = Pool(tuple(miniworld.draw_pool(seed, size, seen)), (), size, 0)
        miniworld.write_pictures(pool.queries, f"{folder}/media")
        records.write(rejects, [], Reject)
    elif kind in sources.ROW_FORMATS:
        pool = _read_files(files, Source(kind, kind, storage.path(media), turns=turns), rejects, max_reject_share, size)
    else:
        source = Source(kind, "preferences", storage.path(media))
        pool = sources.read_folder(prompt, kind == CLIPS, source, rejects, max_reject_share)
    records.write(f"{folder}/queries.parquet", pool.queries, Query)
    storage.write_json(f"{folder}/media.json", {"folder": place})
    return pool


def _read_files(names: Iterable[str], source: Source, rejects: Path, share: float, size: int) -> Pool:
    """The rows of all `names`, each a file, a folder or a cached data set, and what none of them was read for."""
    files = [sources.row_files(name) for name in names]
    pool = sources.read([file for rows, _ in files for file in rows], source, rejects, share, size or None)
    return replace(pool, left_out=sum((others for _, others in files), Counter(pool.left_out)))


def read(folder: str) -> tuple[list[Query], Path]:
    """The queries of a pool and the folder of their media."""
    place = storage.read_json(f"{folder}/media.json")
    if type(place) is not dict or type(place.get("folder")) is not str:
        raise ValueError(f"{folder}/media.json names no folder of media. Run the stage base_models again.")
    return records.read(f"{folder}/queries.parquet", Query), storage.path(place["folder"])


def scene_hashes(queries: Iterable[Query]) -> set[str]:
    """Hashes of the scenes that queries of MiniWorld are about; queries from elsewhere have none."""
    return {question(query.id).scene.hash for query in queries if query.source == MINIWORLD}
