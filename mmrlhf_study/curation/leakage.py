"""The gate between training queries and evaluation sets: what is in both is removed from training and listed.

A query leaks when one of its pictures is an evaluation picture byte for byte, or a near-duplicate of one (by embedding
and thumbnail, as in `dedup`, or by perceptual hash), or when its text shares too many word n-grams with an evaluation
text.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import dctn

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import dedup

HASH_SIDE = 32  # pixels of the grey picture behind a perceptual hash
HASH_LOW = 16  # frequencies kept per direction
COMPARED = 2_048  # rows compared at a time


class Leak(NamedTuple):
    """One reason why a query cannot stay in training."""

    query: str
    kind: str  # exact, embedding, hash, text
    other: str  # the evaluation picture or query it overlaps with
    score: float  # 1 for exact, agreement of thumbnails, share of equal bits, share of n-grams


def picture_hash(picture: Image.Image) -> np.ndarray:
    """[32] uint8: signs of the 256 lowest cosine frequencies of the grey picture against their median.

    Another size or brightness, a little noise or lossy saving changes few of them.
    """
    grey = picture.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BICUBIC)
    low = dctn(np.asarray(grey, np.float64), norm="ortho")[:HASH_LOW, :HASH_LOW].ravel()
    return np.packbits(low > np.median(low[1:]))


class KnownPictures(NamedTuple):
    """What the gate compares of a set of pictures."""

    paths: Sequence[str]
    embeddings: np.ndarray  # [N, D]
    thumbs: np.ndarray  # [N, 192] thumbnails
    bits: np.ndarray  # [N, 32] perceptual hashes
    digests: Sequence[str]  # SHA-256 of the files


def look(paths: Sequence[str], embeddings: np.ndarray, media: str | Path) -> KnownPictures:
    """Open pictures below `media` for all that the gate needs besides their `embeddings` [N, D]."""
    bits, digests = np.zeros((len(paths), HASH_LOW**2 // 8), np.uint8), []
    thumbs = np.zeros((len(paths), 3 * dedup.THUMB**2), np.float32)
    for row, path in enumerate(paths):
        file = storage.inside(storage.path(media), path)
        digests.append(storage.sha256_file(file))
        with Image.open(file) as picture:
            bits[row] = picture_hash(picture)
            thumbs[row] = dedup.thumbnail(picture)
    return KnownPictures(paths, embeddings, thumbs, bits, digests)


def equal_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[len(a), len(b)] share of equal bits between rows of hashes."""
    wide = a.view(np.uint64)[:, None] ^ b.view(np.uint64)[None]
    return 1 - np.bitwise_count(wide).sum(2, dtype=np.uint16) / (8 * a.shape[1])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[len(a), len(b)] cosines between rows; zero rows are like nothing."""
    wide = [x.astype(np.float32) for x in (a, b)]
    left, right = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6) for x in wide)
    return left @ right.T


def best(a: np.ndarray, b: np.ndarray, like: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(row of `b` most like each row of `a`, how like), block by block; `like` gives [rows, rows] for two blocks."""
    place, score = np.zeros(len(a), np.int64), np.full(len(a), -np.inf)
    for left in range(0, len(a), COMPARED):
        rows = slice(left, min(left + COMPARED, len(a)))
        for right in range(0, len(b), COMPARED):
            likeness = like(a[rows], b[right : right + COMPARED])
            value, top = likeness.max(1), likeness.argmax(1)
            better = value > score[rows]
            place[rows][better], score[rows][better] = right + top[better], value[better]
    return place, score


def picture_leaks(
    ours: KnownPictures, theirs: KnownPictures, cosine: float, agreement: float, bits: float
) -> dict[str, tuple[str, str, float]]:
    """Pictures of ours that are in theirs: path -> (kind, their path, score), by the strictest kind that holds.

    `cosine` and `agreement` are the thresholds of near-duplicates, `bits` is that of equal bits of the hashes.
    """
    if not len(theirs.paths) or not len(ours.paths):
        return {}
    width = ours.embeddings.shape[1]

    def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Agreement of thumbnails where embeddings are near, -1 elsewhere; the rows hold both side by side."""
        return np.where(cosines(a[:, :width], b[:, :width]) >= cosine, a[:, width:] @ b[:, width:].T, -1.0)

    known = {digest: path for path, digest in zip(theirs.paths, theirs.digests, strict=True)}
    rows = (np.hstack([pictures.embeddings.astype(np.float32), pictures.thumbs]) for pictures in (ours, theirs))
    near, near_score = best(*rows, alike)
    like, like_score = best(ours.bits, theirs.bits, equal_bits)
    leaking = {}
    for i, path in enumerate(ours.paths):
        if ours.digests[i] in known:
            leaking[path] = ("exact", known[ours.digests[i]], 1.0)
        elif near_score[i] >= agreement:
            leaking[path] = ("embedding", theirs.paths[near[i]], float(near_score[i]))
        elif like_score[i] >= bits:
            leaking[path] = ("hash", theirs.paths[like[i]], float(like_score[i]))
    return leaking


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    """The word n-grams of a text, lower case; none when it has fewer than `n` words."""
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def text_leaks(queries: Iterable[Query], evaluation: Iterable[Query], n: int, share: float) -> list[Leak]:
    """Queries of whose n-grams (prompt and reference answer) at least `share` are in one evaluation query.

    The evaluation query named is the one that shares most; among equals the first by id.
    """
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for query in sorted(evaluation, key=lambda query: query.id):
        for gram in grams(f"{query.prompt} {query.answer}", n):
            holders[gram].append(query.id)
    found = []
    for query in queries:
        own = grams(f"{query.prompt} {query.answer}", n)
        shared = Counter(name for gram in own for name in holders.get(gram, ()))
        if shared:
            name = min(shared, key=lambda name: (-shared[name], name))
            if shared[name] / len(own) >= share:
                found.append(Leak(query.id, "text", name, shared[name] / len(own)))
    return found


def leaks(
    queries: Sequence[Query], pictures: Mapping[str, tuple[str, str, float]], texts: Sequence[Leak]
) -> list[Leak]:
    """One row per leaking query, its first leaking picture or else its text, in the order of `queries`."""
    by_text = {leak.query: [leak] for leak in texts}
    rows = []
    for query in queries:
        seen = [Leak(query.id, *pictures[path]) for path in query.media if path in pictures]
        rows += (seen or by_text.get(query.id, []))[:1]
    return rows
