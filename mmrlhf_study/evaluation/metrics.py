"""Metrics of the paper's benchmarks as pure functions of text, for real or MiniWorld answers.

| function | benchmark it comes from |
|---|---|
| `exact_match` | RealWorldQA; VQAv2 and TextVQA (soft scores there): equal up to case, punctuation, articles, spaces |
| `option_letter` | MMBench, MMStar, AI2D, MMMU-Pro: the option an answer chooses, by its letter or its text |
| `relaxed_match` | ChartQA: a number may be off by 5 % of the reference (Masry et al. 2022, §5.1) |
| `anls` | DocVQA, InfoVQA: 1 − normalised edit distance; 0 if the distance is ½ or more (Biten et al. 2019) |
| `yes_no`, `pope` | POPE: accuracy, precision, recall, F1, share of yes (Li et al. 2023) |
| `objects`, `chair` | Object-Hal: CHAIR-i, CHAIR-s (Rohrbach et al. 2018) |

A share goes from 0 to 1. Functions of sums take arrays [..., columns], so a bootstrap can call them directly.
"""

import math
import re
import string
import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

ARTICLES = {"a", "an", "the"}
_ANSWER = re.compile(r"\banswer\b(?:\s+is\b)?\s*:?", re.IGNORECASE)
_END = re.compile(r"(?<!\b[A-Za-z])[.!?](?=\s|$)|\n")  # end of a sentence; `B. red` is not one
_WORD = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?|[^\W_]+|%")
_BRACKETED = re.compile(r"[(\[]\s*([a-z])\s*[)\]]", re.IGNORECASE)
_LEADING = re.compile(r"\s*([A-Z])\s*(?:[.):,]|$)")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.IGNORECASE)
_MARKS = string.whitespace + "".join(set(string.punctuation) - set("()%-+"))


def concluded(answer: str) -> str:
    """The conclusion: the rest of the sentence after the last word `answer`, or the whole text."""
    *before, tail = _ANSWER.split(answer)
    return (_END.split(tail.strip(), maxsplit=1)[0] if before else tail).strip(_MARKS)


def plain(text: str) -> str:
    """Lower-case words and numbers, Unicode-normalised; no punctuation, no articles."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return " ".join([word for word in words if word not in ARTICLES] or words)


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 when the conclusion is one of the references, as `plain` text; else 0."""
    said = plain(concluded(answer))
    return float(bool(said) and said in {plain(reference) for reference in references})


def option_letter(answer: str, options: Sequence[str]) -> str:
    """The option chosen (`a`, `b`, …); blank for none, several, or an invalid letter.

    A letter counts in brackets, before punctuation at the start, or alone; option text counts as a whole phrase,
    longest first. Only text after the last `answer` counts.
    """
    tail, letters = concluded(answer), string.ascii_lowercase[: len(options)]
    found = {match.lower() for match in _BRACKETED.findall(tail)}
    if match := _LEADING.match(tail):
        found.add(match[1].lower())
    alone = tail.strip("()")
    if len(alone) == 1 and alone.isascii() and alone.isalpha():  # a digit is the text of an option
        found.add(alone.lower())
    said = f" {plain(_BRACKETED.sub(' ', tail))} "
    for letter, option in sorted(zip(letters, map(plain, options), strict=True), key=lambda one: -len(one[1])):
        if option and f" {option} " in said:
            found.add(letter)
            said = said.replace(f" {option} ", " ")
    return found.pop() if len(found) == 1 and found <= set(letters) else ""


def number(text: str) -> float | None:
    """Parse a number: `1,234`, `-3.5`, `1e3`, `12 %` as 0.12; else None."""
    stripped = text.strip()
    bare = stripped.removesuffix("%").strip()
    if not bare or not _NUMBER.fullmatch(bare) or not any(letter.isdigit() for letter in bare.partition("e")[0]):
        return None
    value = float(bare.replace(",", "")) / (100 if stripped.endswith("%") else 1)
    return value if math.isfinite(value) else None


def relaxed_match(answer: str, references: Sequence[str], tolerance: float = 0.05) -> float:
    """1 when the conclusion is a number within `tolerance` of a reference number, or matches exactly; else 0."""
    said = number(concluded(answer))
    for reference in references:
        true = number(reference)
        if said is not None and true is not None and abs(said - true) <= tolerance * abs(true):
            return 1.0
    return exact_match(answer, [one for one in references if said is None or number(one) is None])


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: letters to insert, delete or replace."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != other))
    return row[-1]


def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """Best similarity to a reference: 1 − distance / longer length; 0 if distance / length is `threshold` or more."""
    said, best = " ".join(concluded(answer).lower().split()), 0.0
    for reference in (" ".join(one.lower().split()) for one in references):
        longest = max(len(said), len(reference), 1)
        if abs(len(said) - len(reference)) < threshold * longest:  # else the distance is too large
            apart = edit_distance(said, reference) / longest
            best = max(best, 1 - apart if apart < threshold else 0.0)
    return best


# ---------------------------------------------------------------- yes and no


def yes_no(answer: str) -> str:
    """`yes` or `no` if the conclusion has exactly one of the two words, else blank."""
    said = {"yes", "no"}.intersection(plain(concluded(answer)).split())
    return said.pop() if len(said) == 1 else ""


class Pope(NamedTuple):
    """POPE's five numbers and the share of answers without a clear yes or no."""

    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    yes_rate: np.ndarray
    unanswered: np.ndarray


def pope_columns(said: str, true: str) -> tuple[float, float, float, float, float]:
    """(true yes, false yes, true no, false no, neither) of one answer to a question whose answer is `true`."""
    kinds = (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))
    if true not in ("yes", "no"):
        raise ValueError(f"The true answer is {true!r}; POPE's questions are answered by yes or no.")
    return *(float((said, true) == kind) for kind in kinds), float(said not in ("yes", "no"))


def pope(sums: np.ndarray, positives: np.ndarray | float) -> Pope:
    """The numbers from summed `pope_columns` [..., 5] and the number of questions whose answer is yes.

    An answer without yes or no is wrong and not a yes; the released POPE script counts such an answer as a yes.
    """
    hits, false_yes, right_no, _, neither = np.moveaxis(np.asarray(sums, float), -1, 0)
    total = np.asarray(sums, float).sum(-1)
    precision, recall = _ratio(hits, hits + false_yes), _ratio(hits, positives)
    yes = _ratio(hits + false_yes, total)
    f1 = _ratio(2 * precision * recall, precision + recall)
    return Pope(_ratio(hits + right_no, total), precision, recall, f1, yes, _ratio(neither, total))


def _ratio(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """part / whole; 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) != 0)


# ---------------------------------------------------------------- objects that are not there


def objects(text: str, names: Collection[str]) -> list[str]:
    """Objects named in a text, in order, with repeats; the longest match wins."""
    words, found, at = plain(text).split(), [], 0
    longest = max((len(name.split()) for name in names), default=0)
    while at < len(words):
        for size in range(longest, 0, -1):
            name = " ".join(words[at : at + size])
            if name in names:
                found.append(name)
                break
        else:
            size = 1
        at += size
    return found


def chair_columns(named: Sequence[str], there: Collection[str]) -> tuple[float, float, float]:
    """(absent mentions, mentions, 1 if any is absent) of one description."""
    wrong = sum(name not in there for name in named)
    return float(wrong), float(len(named)), float(wrong > 0)


def chair(sums: np.ndarray, descriptions: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """(CHAIR-i, CHAIR-s): wrong share of mentions and of descriptions, from summed columns [..., 3]."""
    wrong, mentions, some = np.moveaxis(np.asarray(sums, float), -1, 0)
    return _ratio(wrong, mentions), _ratio(some, descriptions)
