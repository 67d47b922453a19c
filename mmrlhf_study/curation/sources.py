"""Real pools as queries: conversation files, preference files, folders of pictures or of clips.

A row becomes queries, or a reject with its number and reason; no other row takes its place or changes it. Pictures are
checked by decoding them, a few rows at a time, so a large file is never in memory as a whole.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from tqdm import tqdm

from mmrlhf_core.data import media, records, rows, storage
from mmrlhf_core.data.records import Query, Reject
from mmrlhf_core.data.rows import BadRow, SourceError
from mmrlhf_study.curation import links

EMBEDDED = "embedded"  # folder below the media folder for pictures that came as bytes
AHEAD = 16  # rows in work per thread
CHECKS_KEPT = 2**16  # pictures whose check is remembered, for rows that share one
ROW_FILES = (".json", ".jsonl", ".parquet")  # kinds of files that are read when a pool is a folder
IMAGE_MARK, CLIP_MARK = re.compile("<image>"), re.compile("<(?:image|video)>")  # LLaVA-Video marks clips by either
TURNS = ("context", "alone")
USER, MODEL = "User: ", "Assistant: "  # before each turn of a dialogue that is kept as context
SHARD_NAME = re.compile(r"-\d+-of-\d+$")
Item = tuple[str, str, int, Any]  # place "file.row", file name, row number, value
Stored = Callable[[str], media.Picture]
Turns = list[tuple[str, str]]  # (question, answer) of a dialogue


@dataclass(frozen=True)
class Pool:
    """The result of reading a pool: every row is a query (one per turn), a repeat, or a reject."""

    queries: tuple[Query, ...]
    rejects: tuple[Reject, ...]
    rows: int
    repeats: int  # rows that ask again what a row of the same id asked: several pairs per question
    left_out: Mapping[str, int] = field(default_factory=dict)  # what no query holds and no reject names: how often


@dataclass(frozen=True)
class Source:
    """What to call a pool, how its rows look and where its media are."""

    name: str  # starts every query id
    layout: str  # "conversations" (LLaVA) or "preferences" (VLFeedback, RLAIF-V, MM-RLHF)
    media: Path  # paths in the rows start here; pictures embedded in rows are written here
    turns: str = "context"  # a follow-up question with the turns before it, or "alone" as in the paper


def locate(pool: str) -> Path:
    """The folder of a pool: a local one, or that of a data set in the local hub cache (no network).

    The hub cache holds links, and media must not be links: it serves pools whose pictures are embedded in rows.
    Fetch a pool with loose pictures into a folder of its own.
    """
    folder = storage.path(pool)
    if pool and folder.is_dir():
        return folder
    try:
        return Path(huggingface_hub.snapshot_download(pool, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        raise SourceError(
            f"The pool {pool!r} is neither a folder ({folder}) nor a data set in the hub cache ({cache}). "
            "Put it in one of the two, or use the profile `mini`, which needs neither."
        ) from error


def row_files(name: str) -> tuple[list[Path], Counter[str]]:
    """(files of rows in natural order, how many files of each other kind) of a file, a folder or a cached data set.

    A file that is named is read whatever its kind. In a folder only `ROW_FILES` are; hidden files are not counted.
    """
    if storage.path(name).is_file():
        return [storage.path(name)], Counter()
    folder = locate(name)
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=media.natural)
    files = [file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts)]
    wanted = [file for file in files if file.suffix in ROW_FILES]
    others = Counter(f"{file.suffix or file.name} file" for file in files if file.suffix not in ROW_FILES)
    if not wanted:
        there = ", ".join(f"{kind} ({count})" for kind, count in others.most_common(3)) or "nothing"
        raise SourceError(f"{folder} holds no {', '.join(ROW_FILES)} file, only {there}. Name the files of the pool.")
    return wanted, others


# ---------------------------------------------------------------- rows to queries


def _typed(row: dict, key: str, kinds: tuple[type, ...], default: Any) -> Any:
    """`row[key]`, or the default when it is absent or null; another type makes the row bad."""
    value = row.get(key)
    if value is None:
        return default
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise BadRow(f"wrong type: {key} is {type(value).__name__}, not {wanted}")
    return value


def _media_of(row: dict) -> tuple[bool, list[Any]]:
    """(whether it is a clip, the pictures or clip folder) that a row names."""
    kinds = {"image": (str, bytes, dict, list), "images": (list,), "video": (str, list)}
    given = {key: _typed(row, key, allowed, None) for key, allowed in kinds.items()}
    used = {key: value for key, value in given.items() if value}
    if len(used) != 1:
        raise BadRow(f"two kinds of media: {', '.join(used)}" if used else "no media: neither image nor video")
    key, value = used.popitem()
    return key == "video", value if type(value) is list else [value]


def embedded(data: bytes) -> media.Picture:
    """A picture that came as bytes; its name is its content. `keep` writes it."""
    digest = storage.sha256_bytes(data)
    kind = media.decode(io.BytesIO(data), "embedded bytes")
    return media.Picture(f"{EMBEDDED}/{digest[:2]}/{digest}.{kind}", digest, data)


def keep(folder: Path, pictures: Iterable[media.Picture]) -> None:
    """Write those pictures into the media folder that came as bytes."""
    for picture in pictures:
        if picture.data is not None and not (folder / picture.path).exists():
            with storage.writing(folder.resolve() / picture.path) as temporary:
                temporary.write_bytes(picture.data)


def _pictures(row: dict, folder: Path, stored: Stored) -> tuple[bool, list[media.Picture]]:
    """(whether it is a clip, the decoded pictures or frames in order) of a row."""
    clip, items = _media_of(row)
    if clip and len(items) == 1 and type(items[0]) is str:
        items = media.frames(folder, items[0])
    pictures = []
    for item in items:
        data = item.get("bytes") or item.get("path") if type(item) is dict else item
        if type(data) not in (str, bytes):
            raise BadRow(f"wrong type: a picture is {type(data).__name__}, not a path or bytes")
        pictures.append(stored(data) if type(data) is str else embedded(data))
    return clip, pictures


def _conversation(row: dict, place: str) -> tuple[str, Turns, list[str]]:
    """(name, turns, what is left out) of a row in LLaVA's form.

    Published mixes name rows after their picture, many rows alike: the place makes the name unique.
    """
    dialogue, turns = _typed(row, "conversations", (list,), []), []
    system = [turn for turn in dialogue[:1] if type(turn) is dict and turn.get("from") == "system"]
    left_out = ["system text"] * bool(system or row.get("system"))
    for number, turn in enumerate(dialogue[len(system) :]):
        speaker = turn.get("from") if type(turn) is dict else type(turn).__name__
        if speaker != ("gpt" if number % 2 else "human"):
            raise BadRow(f"turns out of order: turn {number + 1} is from {str(speaker)[:60]!r}")
        text = _typed(turn, "value", (str,), "")
        left_out += ["missing answer"] * (number % 2 and not text.strip())
        turns[number // 2 :] = [(turns[-1][0], text)] if number % 2 else [(text, "")]
    if not turns:
        raise BadRow("no turns: the conversation is empty")
    return f"{_typed(row, 'id', (str, int), '')}@{place}", turns, left_out


def _preference(row: dict, place: str) -> tuple[str, Turns, list[str]]:
    """(name, its one turn, what is left out) of a row in the form of VLFeedback, RLAIF-V or MM-RLHF."""
    prompt = _typed(row, "prompt", (str,), None) or _typed(row, "question", (str,), "")
    given = [_typed(row, key, (str, int), "") for key in ("id", "idx")]
    name = next((str(value) for value in given if value != ""), f"@{place}")
    return name, [(prompt, _typed(row, "answer", (str,), ""))], ["system text"] * bool(row.get("system"))


ROW_FORMATS = {"conversations": _conversation, "preferences": _preference}


def plain_prompt(text: str, first: int = 1, clip: bool = False) -> str:
    """`text` without picture marks; marks inside a sentence become '[image N]', counted from `first`.

    Marks before or after all of the text only say that there is a picture, and every template puts
    pictures in front of the question itself.
    """
    parts = (CLIP_MARK if clip else IMAGE_MARK).split(text)
    filled = [part for part in parts if part.strip()]
    if len(parts) == 1 or not filled:
        return text if len(parts) == 1 else ""
    if len(filled) == 1:
        return filled[0].strip()
    word = "video" if clip else "image"
    return (parts[0] + "".join(f"[{word} {number}]{part}" for number, part in enumerate(parts[1:], first))).strip()


def _seen(turns: Turns, shown: int, clip: bool) -> list[int]:
    """How many of the pictures have been shown by each turn; without marks, all of them."""
    marks = [len((CLIP_MARK if clip else IMAGE_MARK).findall(question)) for question, _ in turns]
    if not sum(marks):
        return [shown] * len(turns)
    if sum(marks) != shown:
        raise BadRow(f"marks do not fit: {sum(marks)} marks for {shown} media")
    if not marks[0]:
        raise BadRow("question before its picture: the first turn has no mark")
    return list(accumulate(marks))


def _prompts(turns: Turns, seen: Sequence[int], clip: bool, context: bool) -> Iterator[str]:
    """The prompt of every turn, with `context` after the turns before it.

    A mark that stands for no picture would be one to the models' templates, so it makes the row bad.
    """
    history: list[str] = []
    for number, (question, answer) in enumerate(turns, 1):
        asked = plain_prompt(question, seen[number - 2] + 1 if number > 1 else 1, clip)
        if not asked.strip():
            raise BadRow(f"empty prompt: turn {number}")
        prompt = "\n".join([*history, USER + asked]) if history else asked
        if mark := CLIP_MARK.search(prompt):
            raise BadRow(f"mark without a picture: {mark[0]!r} in the text of turn {number}; write it otherwise")
        history += [USER + asked, MODEL + answer] if context else []
        yield prompt


def _queries(row: Any, place: str, topic: str, source: Source, stored: Stored) -> tuple[list[Query], list[str]]:
    """(queries of one row, one per turn, what is left out of it), or BadRow; `group` lists the pictures' hashes.

    `topic` is the name of the file without its shard: pools of many origins come as one file each.
    """
    if type(row) is not dict:
        raise row if type(row) is BadRow else BadRow(f"wrong type: the row is {type(row).__name__}")
    name, turns, left_out = ROW_FORMATS[source.layout](row, place)
    clip, pictures = _pictures(row, source.media, stored)
    seen, queries = _seen(turns, 1 if clip else len(pictures), clip), []
    for number, prompt in enumerate(_prompts(turns, seen, clip, source.turns == "context")):
        shown = pictures if clip else pictures[: seen[number]]
        hashes = " ".join(picture.digest for picture in shown)
        queries.append(
            Query(
                id=f"{source.name}/{name}" + (f"#{number + 1}" if len(turns) > 1 else ""),
                prompt=prompt,
                modality="video" if clip else "image" if len(shown) == 1 else "images",
                media=tuple(picture.path for picture in shown),
                category="video" if clip else "",
                answer=turns[number][1],
                source=source.name,
                group=storage.sha256_bytes(hashes.encode()) if clip else hashes,
                topic=topic,
            )
        )
    keep(source.media, pictures)
    return queries, left_out


# ---------------------------------------------------------------- reading


def _in_order(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """`work` of every item, done in a few threads and given in the order of the items, few at a time."""
    items = iter(items)
    with ThreadPoolExecutor(threads) as workers:
        while part := list(islice(items, AHEAD * threads)):
            yield from workers.map(work, part)


def _grouped(queries: Sequence[Query]) -> tuple[Query, ...]:
    """`queries` with one group name for all that share a picture, directly or through others."""
    shown = [query.group.split() for query in queries]
    head = links.heads(shown)
    return tuple(replace(query, group=head[names[0]][:16]) for query, names in zip(queries, shown, strict=True))


def _outcome(item: Item, source: Source, stored: Stored) -> tuple[str, int, list[Query] | str, list[str]]:
    """(file, row number, the row's queries or why it has none, what is left out of it)."""
    place, file, number, row = item
    try:
        return file, number, *_queries(row, place, SHARD_NAME.sub("", Path(file).stem), source, stored)
    except (BadRow, media.MediaError) as bad:
        return file, number, str(bad), []
    except records.RecordError as error:
        return file, number, f"unfit value: {error}", []


def _pool(items: Iterable[Item], source: Source, threads: int) -> Pool:
    """All rows, in order. A row with the id of an earlier one has to ask the same, and is then a repeat."""
    stored = lru_cache(CHECKS_KEPT)(partial(media.stored, source.media))
    outcomes = _in_order(partial(_outcome, source=source, stored=stored), items, threads)
    taken: dict[str, tuple[str, str]] = {}
    queries, rejects, left_out, count, repeats = [], [], Counter(), 0, 0
    for file, number, result, parts in tqdm(outcomes, source.name, unit=" rows", disable=None):
        count += 1
        if type(result) is list:
            left_out.update(parts)
            question = (result[0].prompt, result[0].group)
            known = taken.setdefault(result[0].id, question)
            if known == question:
                queries += result if known is question else []
                repeats += known is not question
                continue
            result = f"duplicate id: an earlier row asks something else as {result[0].id!r}"
        rejects.append(Reject(source.name, file, number, result[:300]))
    return Pool(_grouped(queries), tuple(rejects), count, repeats, left_out)


def faults(rejects: Iterable[Reject]) -> Counter[str]:
    """How many rows each kind of fault has."""
    return Counter(reject.reason.split(":")[0] for reject in rejects)


def _ready(source: Source) -> Source:
    """`source` with its media folder in full, or one sentence on what is wrong with it."""
    for name, value, allowed in (("layout", source.layout, ROW_FORMATS), ("turns", source.turns, TURNS)):
        if value not in allowed:
            raise SourceError(f"{source.name}: {name} {value!r} is unknown. Give {' or '.join(allowed)}.")
    folder = storage.path(source.media).resolve()
    if not folder.is_dir():
        raise SourceError(f"{source.name}: the media folder {folder} is not there. Create or mount it.")
    return replace(source, media=folder)


def _finish(items: Iterable[Item], source: Source, rejects: Path, max_reject_share: float, threads: int) -> Pool:
    """Read all rows, write the rejects, and stop when they are too many."""
    with media.quiet():
        pool = _pool(items, source, threads)
    records.write(rejects, pool.rejects, Reject)
    if not pool.rows:
        raise SourceError(f"{source.name} holds no rows. Check the files of the source.")
    if len(pool.rejects) > max_reject_share * pool.rows:
        kinds = faults(pool.rejects).most_common(3)
        raise SourceError(
            f"{source.name}: {len(pool.rejects)} of {pool.rows} rows are unusable, over the allowed share of "
            f"{max_reject_share:g}, mostly {', '.join(f'{kind} ({count})' for kind, count in kinds)}. "
            f"See {rejects}, then repair the source or raise the share."
        )
    return pool


def read(
    files: Sequence[Path],
    source: Source,
    rejects: Path,
    max_reject_share: float = 0.01,
    limit: int | None = None,
    threads: int = 2,
) -> Pool:
    """The pool in Parquet, JSON or JSON Lines files, up to `limit` rows; rejects go to a file.

    The same files in the same order give the same pool, whatever `threads` is.
    """
    items = (
        (f"{place}.{number}", file.name, number, row)
        for place, file in enumerate(map(storage.path, files), 1)
        for number, row in rows.read(file)
    )
    return _finish(islice(items, limit), _ready(source), rejects, max_reject_share, threads)


def read_folder(
    prompt: str, clips: bool, source: Source, rejects: Path, max_reject_share: float = 0.01, threads: int = 2
) -> Pool:
    """One query per picture below `source.media`, or per folder of frames when `clips`; all ask `prompt`.

    Rows are counted in natural order of their paths. Hidden files are ignored; any other file that is
    not a picture, and any empty folder of clips, is a reject.
    """
    source = _ready(source)
    base = source.media
    paths = sorted((path for path in base.rglob("*") if _is_row(path, clips)), key=media.natural)
    names = [path.relative_to(base).as_posix() for path in paths]
    key = "video" if clips else "image"
    items = (
        (f"1.{number}", base.name, number, {"id": name, "prompt": prompt, key: name})
        for number, name in enumerate(names, 1)
    )
    return _finish(items, source, rejects, max_reject_share, threads)


def _is_row(path: Path, clips: bool) -> bool:
    """Whether a path below a media folder is a picture, or with `clips` a folder of frames (or of nothing)."""
    if not clips:
        return not path.is_dir() and not path.name.startswith(".")
    return path.is_dir() and (any(item.is_file() for item in path.iterdir()) or not any(path.iterdir()))
