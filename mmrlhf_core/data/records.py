"""Typed records: checked when they are made, stored as Parquet, read back exactly as they were written.

A record is a frozen dataclass whose fields are `str`, `int`, `float`, `bool` or a tuple of one of these, each with its
meaning in one line. The Parquet columns come from these types alone. Nothing is converted: a wrong type is an error.
"""

import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from mmrlhf_core.data import storage

MODALITIES = {"text": (0, 0), "image": (1, 1), "images": (2, math.inf), "video": (1, math.inf)}  # media paths
CATEGORIES = ("", "long", "short", "mcq", "safety", "video")
ROW_GROUP = 16_384  # rows
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_INT64 = range(-(2**63), 2**63)


class RecordError(ValueError):
    """A value or a file does not fit the record type."""


def column(meaning: str, default: Any = MISSING, allowed: Iterable[str] = (), filled: bool = False) -> Any:
    """A record field: its meaning, its default, the values it may take (if limited), whether blank is refused."""
    return field(default=default, metadata={"meaning": meaning, "allowed": tuple(allowed), "filled": filled})


class Column(NamedTuple):
    """One field of a record type."""

    name: str
    plain: type  # str, int, float or bool
    many: bool  # a tuple of it
    meaning: str
    allowed: tuple[str, ...]
    filled: bool

    @property
    def arrow(self) -> pa.DataType:
        """The Parquet type."""
        return pa.list_(_ARROW[self.plain]) if self.many else _ARROW[self.plain]


_COLUMNS: dict[Any, tuple[Column, ...]] = {}  # by record type, because every record that is made looks them up


def columns(kind: Any) -> tuple[Column, ...]:
    """The columns of a record type, in order."""
    if kind in _COLUMNS:
        return _COLUMNS[kind]
    hints = get_type_hints(kind)
    many = {item.name: get_origin(hints[item.name]) is tuple for item in fields(kind)}
    plain = {name: get_args(hints[name])[0] if is_tuple else hints[name] for name, is_tuple in many.items()}
    _COLUMNS[kind] = tuple(Column(i.name, plain[i.name], many[i.name], **i.metadata) for i in fields(kind))
    return _COLUMNS[kind]


def _problem(value: Any, plain: Any) -> str:
    """What is wrong with one plain value, or ''."""
    if type(value) is not plain:
        return f"is {type(value).__name__} {_shown(value)}, not {plain.__name__}"
    if plain is str and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return "holds half of a Unicode pair, which is no text"
    if plain is float and not math.isfinite(value):
        return f"is {value}; only finite numbers are stored"
    if plain is int and value not in _INT64:
        return f"is {_shown(value)}, which does not fit in 64 bits"
    return ""


def _shown(value: Any) -> str:
    """The beginning of a value for an error; Python refuses to write whole numbers of thousands of digits."""
    return "with thousands of digits" if type(value) is int and abs(value) >= 10**1000 else repr(str(value)[:60])


@dataclass(frozen=True, slots=True)
class Record:
    """The base of all records. Every field is checked against its type when the record is made."""

    VERSION: ClassVar[int]

    def __post_init__(self) -> None:
        for name, plain, many, _, allowed, filled in columns(type(self)):
            value = getattr(self, name)
            if many and type(value) is not tuple:
                raise self._error(name, f"is {type(value).__name__}, not a tuple of {plain.__name__}")
            for part in value if many else (value,):
                if problem := _problem(part, plain):
                    raise self._error(name, problem)
            if allowed and value not in allowed:
                raise self._error(name, f"is {value!r}; give one of {', '.join(map(repr, allowed))}")
            if filled and not value.strip():
                raise self._error(name, "is blank")
        self._check()

    def _check(self) -> None:
        """Further rules of a record type, such as rules on several fields together."""

    def _error(self, name: str, problem: str) -> RecordError:
        return RecordError(f"{type(self).__name__}.{name} {problem}.")


@dataclass(frozen=True, slots=True)
class Query(Record):
    """One question about pictures or a clip, or in text alone."""

    VERSION: ClassVar[int] = 1

    id: str = column("id of the query, unique in a pool", filled=True)
    prompt: str = column("the question, without marks for its pictures", filled=True)
    modality: str = column("what the question is about", allowed=MODALITIES)
    media: tuple[str, ...] = column("pictures, or the frames of a clip in order, inside the media folder")
    category: str = column("question class of the paper; blank while unknown", "", allowed=CATEGORIES)
    answer: str = column("reference answer; blank when there is none", "")
    source: str = column("pool the query comes from", "")
    group: str = column("picture group, shared by all queries with the same picture; a group lies in one split", "")
    topic: str = column("what the query is about in the words of its pool; blank when it has none", "")
    plant: str = column("for a planted near-duplicate, id of its original; otherwise blank", "")

    def _check(self) -> None:
        least, most = MODALITIES[self.modality]
        if not least <= len(self.media) <= most:
            raise self._error("media", f"holds {len(self.media)} paths, which is not {self.modality!r}")
        for path in self.media:
            if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
                raise self._error("media", f"holds {path!r}; give paths inside the folder such as 'a/b.png'")


@dataclass(frozen=True, slots=True)
class Response(Record):
    """One answer of one responder to a query, with the decoding settings that produced it."""

    VERSION: ClassVar[int] = 1

    id: str = column("id of the response, unique in a file", filled=True)
    query: str = column("id of the query it answers", filled=True)
    responder: str = column("who answered: a model of the pool, or a person", filled=True)
    text: str = column("the answer; blank when the responder said nothing")
    temperature: float = column("sampling temperature; 0 means greedy", 0.0)
    top_p: float = column("nucleus share that was sampled from; 1 means all", 1.0)
    max_new_tokens: int = column("most tokens the answer could have; 0 when there was no limit", 0)
    seed: int = column("seed the answer was sampled with; 0 for greedy", 0)


REPAIRS = ("", "written", "damaged")


@dataclass(frozen=True, slots=True)
class Ranking(Record):
    """One annotator's order of all responses to a query; equal ranks are ties."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    annotator: str = column("who ranked; 'panel' for the order made from all of them", filled=True)
    responses: tuple[str, ...] = column("ids of the responses")
    ranks: tuple[int, ...] = column("rank of each of them: 1 is best, ties share one, none is left out")
    basis: str = column("why this order, in words", "")
    repair: str = column(
        "'written': all were equally bad and a right answer was added; 'damaged': all were equally "
        "good and one with an error was added",
        "",
        allowed=REPAIRS,
    )
    round: int = column("0 at first, 1 after an expert sent the query back", 0)

    def _check(self) -> None:
        if len(set(self.responses)) != len(self.responses) or len(self.responses) < 2:
            raise self._error("responses", f"holds {len(self.responses)} ids; give two or more, each once")
        if len(self.ranks) != len(self.responses):
            raise self._error("ranks", f"holds {len(self.ranks)} ranks for {len(self.responses)} responses")
        if set(self.ranks) != set(range(1, max(self.ranks) + 1)):
            raise self._error("ranks", f"is {self.ranks}; ranks go 1, 2, 3 without a gap, and ties share one")
        if self.round < 0:
            raise self._error("round", f"is {self.round}; give 0 or more")


@dataclass(frozen=True, slots=True)
class Critique(Record):
    """Why a response got its scores: an annotator's own words, and the same in full."""

    VERSION: ClassVar[int] = 1

    response: str = column("id of the response", filled=True)
    query: str = column("id of the query", filled=True)
    annotator: str = column("whose words they are", filled=True)
    reason: str = column("the annotator's own words", "")
    expanded: str = column("the reason in full (paper, Tab. 7); blank when it was not expanded", "")
    writer: str = column("who expanded it: a model, or 'truth' for the writer that knows the scene", "")


ORIGINS = ("ranked", "written", "damaged", "published", "reward")
SPLITS = ("", "train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Pair(Record):
    """Two responses to one query, the first better than the second."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    chosen: str = column("id of the better response", filled=True)
    rejected: str = column("id of the worse response", filled=True)
    chosen_reason: str = column("why the better response is good", "")
    rejected_reason: str = column("why the worse response is worse", "")
    steps: int = column("how many ranks lie between them, at least 1", 1)
    margin: float = column("overall score of the better minus the worse, or difference of rewards; 0 when unknown", 0.0)
    helpfulness: float = column("mean helpfulness of the better minus the worse", 0.0)
    faithfulness: float = column("mean faithfulness of the better minus the worse", 0.0)
    ethics: float = column("mean ethics of the better minus the worse", 0.0)
    origin: str = column(
        "how it came about: both sides ranked, one of them written or damaged to repair a tie, read "
        "from a published file, or ordered by a reward model",
        "ranked",
        allowed=ORIGINS,
    )
    split: str = column("part of the data it belongs to; blank before splitting", "", allowed=SPLITS)

    def _check(self) -> None:
        if self.chosen == self.rejected:
            raise self._error("rejected", f"is {self.rejected!r}, the same as chosen")
        if self.steps < 1:
            raise self._error("steps", f"is {self.steps}; give 1 or more")


@dataclass(frozen=True, slots=True)
class Reject(Record):
    """One row of a source that was set aside."""

    VERSION: ClassVar[int] = 1

    source: str = column("pool the row comes from", filled=True)
    file: str = column("name of the file the row is in; for a folder of media, of the folder", filled=True)
    row: int = column("number of the row in it, from 1; the line number in JSON Lines")
    reason: str = column("why: the kind of fault, a colon, the details", filled=True)


Kind = TypeVar("Kind", bound=Record)


def _schema(kind: type[Record]) -> pa.Schema:
    """The Parquet columns of a record type, with its name and version in the file metadata."""
    names = [pa.field(item.name, item.arrow, nullable=False) for item in columns(kind)]
    return pa.schema(names, {"record": kind.__name__, "version": str(kind.VERSION)})


def write(path: str | Path, rows: Iterable[Kind], kind: type[Kind] | None = None) -> None:
    """Write records of one type as Parquet, whole or not at all; the same rows give the same bytes.

    `kind` is needed only where `rows` may be empty.
    """
    rows, name = list(rows), Path(path).name
    if kind is None and not rows:
        raise RecordError(f"No rows for {name}: call write(path, rows, Query), so that the file has a type.")
    kind = kind or type(rows[0])
    for number, row in enumerate(rows, 1):
        if type(row) is not kind:
            raise RecordError(f"Row {number} for {name} is {type(row).__name__}, not {kind.__name__}.")
    values = {item.name: [getattr(row, item.name) for row in rows] for item in columns(kind)}
    table = pa.Table.from_pydict(values, _schema(kind))
    with storage.writing(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True)


def _match(path: str | Path, schema: pa.Schema, kind: type[Record]) -> None:
    """Raise unless the file holds exactly the columns of this version of the record type."""
    metadata = schema.metadata or {}
    name, version = (metadata.get(key, b"?").decode(errors="replace") for key in (b"record", b"version"))
    if (name, version) != (kind.__name__, str(kind.VERSION)):
        raise RecordError(
            f"{path} holds {name} records of version {version}, not {kind.__name__} of version "
            f"{kind.VERSION}. Give the right file, or delete it and rerun its stage."
        )
    wanted = {item.name: item.arrow for item in columns(kind)}
    given = dict(zip(schema.names, schema.types, strict=True))
    for key in [*wanted, *given]:
        if given.get(key) != wanted.get(key):
            state = f"{given.get(key, 'not there')} and has to be {wanted.get(key, 'left out')}"
            raise RecordError(f"{path}: column {key!r} is {state}. Delete the file and rerun its stage.")


def read(path: str | Path, kind: type[Kind]) -> list[Kind]:
    """All records of a file, in order; a file of another type, version or shape is an error that says so."""
    file = storage.path(path)
    if not file.is_file():
        raise RecordError(f"{path} is not there. Run the stage that writes it.")
    try:
        table = pq.read_table(file, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{path} is damaged or cut short. Delete it and rerun its stage.") from error
    _match(path, table.schema, kind)
    values = []
    for item in columns(kind):
        plain = table.column(item.name).to_pylist()
        values.append([None if part is None else tuple(part) for part in plain] if item.many else plain)
    rows: list[Kind] = []
    try:
        for row in zip(*values, strict=True):
            rows.append(kind(*row))
    except RecordError as error:
        raise RecordError(f"{path}, row {len(rows) + 1}: {error}") from error
    return rows
