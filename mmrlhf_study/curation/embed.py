"""CLIP embeddings of a pool's pictures, in shards of float16; an interrupted run continues with the missing shards.

A clip is represented by its first frame, as in the paper (arXiv 2502.10391, §2.2). Of several pictures or frames the
last is embedded too, because near-duplicates have to agree in both. On several GPUs, or several processes without any:

    accelerate launch -m mmrlhf_study.curation.embed queries.parquet media models/clip scratch/embeddings
    torchrun --nproc-per-node 4 -m mmrlhf_study.curation.embed queries.parquet media models/clip scratch/embeddings
"""

import argparse
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from accelerate import PartialState
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose
from tqdm import tqdm

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Query
from mmrlhf_core.models import policy

SHARD = 1_024  # pictures per file
ALL = "all.npy"
CONFIG = "open_clip_config.json"


class EmbedError(ValueError):
    """An encoder or a shard is not usable."""


class Encoder(NamedTuple):
    """A model that turns pictures into vectors."""

    model: torch.nn.Module  # open_clip model in evaluation mode
    transform: Compose  # PIL picture -> [3, side, side]
    digest: str  # of its configuration and weights


def load(name: str) -> Encoder:
    """An open_clip model by folder or hub id, already on this machine; `timm/vit_base_patch32_clip_224.openai` is the
    paper's CLIP ViT-B/32 in this form."""
    folder = policy.locate(name)
    if not (folder / CONFIG).is_file():
        raise EmbedError(f"{folder} holds no {CONFIG}, so it is not an open_clip model. Name a folder that holds one.")
    config = storage.read_json(folder / CONFIG)
    if type(config) is not dict or any(type(config.get(key)) is not dict for key in ("model_cfg", "preprocess_cfg")):
        raise EmbedError(f"{folder / CONFIG} needs the sections model_cfg and preprocess_cfg. Fetch the model again.")
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}", weights_only=True)
    return Encoder(model.to(policy.device()).eval(), transform, digest(folder))


def digest(folder: Path) -> str:
    """SHA-256 over configuration and safetensors of an open_clip folder."""
    files = [folder / CONFIG, *sorted(folder.glob("*.safetensors"))]
    return storage.sha256_bytes(" ".join(storage.sha256_file(file) for file in files).encode())


def views(query: Query) -> tuple[str, ...]:
    """The media of a query that are embedded: the first, and the last when there are more."""
    return query.media[:1] if len(query.media) < 2 else (query.media[0], query.media[-1])


def pictures(queries: Iterable[Query]) -> list[str]:
    """The pictures to embed, each once, sorted: row i of the embeddings belongs to entry i."""
    return sorted({path for query in queries for path in views(query)})


class Pictures(Dataset):
    """Decoded and resized pictures, or the reason why one cannot be."""

    def __init__(self, media: Path, paths: Sequence[str], transform: Compose) -> None:
        self.media, self.paths, self.transform = media, paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[int, torch.Tensor | None, str]:
        """(place, picture [3, side, side], '') or (place, None, reason)."""
        try:
            with Image.open(storage.inside(self.media, self.paths[place])) as picture:
                return place, self.transform(picture.convert("RGB")), ""
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return place, None, f"unreadable picture: {type(error).__name__}"


@torch.inference_mode()
def _shard(encoder: Encoder, loader: DataLoader, n: int, bar: tqdm) -> tuple[np.ndarray, dict[str, str]]:
    """Embeddings [n, D] float16 of length one, a zero row where there is none, and the reasons by row."""
    rows, reasons = np.zeros((n, 0), np.float16), {}
    for batch in loader:
        reasons |= {str(place): reason for place, picture, reason in batch if picture is None}
        bar.update(len(batch))
        batch = [(place, picture) for place, picture, _ in batch if picture is not None]
        if not batch:
            continue
        images = torch.stack([picture for _, picture in batch]).to(policy.device())
        values = encoder.model.encode_image(images, normalize=True)
        finite, places = values.isfinite().all(1).cpu().numpy(), np.array([place for place, _ in batch])
        reasons |= {str(place): "embedding is not finite" for place in places[~finite]}
        rows = rows if rows.shape[1] else np.zeros((n, values.shape[1]), np.float16)
        rows[places[finite]] = values.cpu().numpy()[finite]
    return rows, reasons


def _key(encoder: Encoder, media: Path, paths: Sequence[str]) -> str:
    """What a shard was made from: the encoder, and path and content of each picture."""
    files = [(path, media / path) for path in paths]
    lines = [f"{path} {storage.sha256_file(file) if file.is_file() else 'missing'}" for path, file in files]
    return storage.sha256_bytes("\n".join([encoder.digest, *lines]).encode())


def _note(file: Path) -> dict:
    """The note of a shard; {} when shard or note is missing or the note is damaged."""
    note = file.with_suffix(".json")
    content = storage.read_json(note) if file.is_file() and note.is_file() else {}
    return content if type(content) is dict and content.keys() >= {"key", "rows", "rejects", "sha256"} else {}


def _done(file: Path, key: str, n: int) -> bool:
    """Whether a shard is complete: made from the same pictures, with n rows, and unchanged since."""
    note = _note(file)
    return bool(note) and (note["key"], note["rows"], note["sha256"]) == (key, n, storage.sha256_file(file))


def shards(paths: Sequence[str], folder: Path, size: int) -> list[tuple[Path, Sequence[str]]]:
    """(file, its pictures) of every shard."""
    return [(folder / f"{i // size:06d}.npy", paths[i : i + size]) for i in range(0, len(paths), size)]


def embed(
    encoder: Encoder,
    paths: Sequence[str],
    media: str | Path,
    folder: str | Path,
    workers: int,
    size: int = SHARD,
    batch: int = 256,
) -> None:
    """Write the embeddings of `paths` (pictures below `media`) into shards of `size` rows in `folder`.

    Complete shards of the same pictures are kept, so a killed run continues where it stopped. Under `accelerate launch`
    or `torchrun` each process makes its own share of the shards. `workers` processes decode and resize the pictures.
    """
    state = PartialState(cpu=not torch.cuda.is_available())  # without `cpu`, processes on CPUs do not connect
    media, folder = storage.path(media).resolve(), storage.path(folder)
    share = shards(paths, folder, size)[state.process_index :: state.num_processes]
    todo = [(file, part, _key(encoder, media, part)) for file, part in share]
    todo = [(file, part, key) for file, part, key in todo if not _done(file, key, len(part))]
    n = sum(len(part) for _, part, _ in todo)
    with tqdm(total=n, unit=" pictures", desc="embedding", disable=not state.is_local_main_process) as bar:
        for file, part, key in todo:
            data = Pictures(media, part, encoder.transform)
            loader = DataLoader(data, batch, num_workers=workers, collate_fn=list)
            rows, reasons = _shard(encoder, loader, len(part), bar)
            _write(file, rows, {"key": key, "rows": len(rows), "width": rows.shape[1], "rejects": reasons})
    state.wait_for_everyone()
    if state.is_main_process:
        _tidy(folder, {file.stem for file, _ in shards(paths, folder, size)})
    state.wait_for_everyone()


def _write(file: Path, rows: np.ndarray, note: dict) -> None:
    """The shard, then its note: without a note the shard does not count."""
    file.with_suffix(".json").unlink(missing_ok=True)
    with storage.writing(file) as temporary:
        np.save(temporary, rows)
    storage.write_json(file.with_suffix(".json"), note | {"sha256": storage.sha256_file(file)})


def _tidy(folder: Path, stems: set[str]) -> None:
    """Remove what earlier runs over other pictures left, and joined rows."""
    for file in folder.iterdir():
        if file.stem not in stems:
            storage.remove(file)


def read(paths: Sequence[str], folder: str | Path, size: int = SHARD) -> tuple[np.ndarray, dict[str, str]]:
    """Embeddings [N, D] float16 of `paths`, memory-mapped, and the reason for each picture that has none (zero row).

    The shards are joined into one file the first time.
    """
    folder, reasons, parts = storage.path(folder), {}, {}
    for file, part in shards(paths, folder, size):
        if not (note := _note(file)):
            raise EmbedError(f"{file.name} is not finished. Run the embedding again; it continues where it stopped.")
        parts[file] = np.load(file, mmap_mode="r", allow_pickle=False)
        reasons |= {part[int(row)]: reason for row, reason in note["rejects"].items()}
    width = max((rows.shape[1] for rows in parts.values()), default=0)
    if not width:
        raise EmbedError(f"None of the {len(paths)} pictures could be embedded. Check the media folder of the pool.")
    for file, part in shards(paths, folder, size):
        rows = parts[file]  # of width 0 when no picture in it could be read
        if rows.dtype != np.float16 or len(rows) != len(part) or rows.shape[1] not in (0, width):
            raise EmbedError(
                f"{file.name} is {rows.dtype} of shape {rows.shape}, not float16 of shape ({len(part)}, {width}). "
                "Delete the file and run the embedding again."
            )
    if not (folder / ALL).is_file() or np.load(folder / ALL, mmap_mode="r").shape != (len(paths), width):
        _join(folder / ALL, parts.values(), width)
    return np.load(folder / ALL, mmap_mode="c", allow_pickle=False), reasons


def usable(paths: Sequence[str], rows: np.ndarray, reasons: dict[str, str]) -> tuple[list[str], np.ndarray]:
    """(paths, embeddings) without those that have a reason; the rows stay memory-mapped when none has."""
    if not reasons:
        return list(paths), rows
    good = [i for i, path in enumerate(paths) if path not in reasons]
    return [paths[i] for i in good], rows[good]


def _join(target: Path, parts: Collection[np.ndarray], width: int) -> None:
    with storage.writing(target) as temporary:
        rows = np.lib.format.open_memmap(temporary.with_suffix(".npy"), "w+", np.float16, (sum(map(len, parts)), width))
        start = 0
        for part in parts:
            rows[start : start + len(part), : part.shape[1]] = part
            start += len(part)
        rows.flush()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="accelerate launch -m mmrlhf_study.curation.embed")
    parser.add_argument("queries", help="queries.parquet of a pool")
    parser.add_argument("media", help="folder of its pictures")
    parser.add_argument("clip", help="folder or hub id of an open_clip model")
    parser.add_argument("folder", help="where the shards go")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode, per GPU")
    chosen = parser.parse_args(words)
    try:
        paths = pictures(records.read(chosen.queries, Query))
        embed(load(chosen.clip), paths, chosen.media, chosen.folder, chosen.workers)
    except (ValueError, OSError) as error:
        print(f"embed: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
