"""GloVe: mean of the vectors of a text's words.

Pennington, Socher and Manning, "GloVe: Global Vectors for Word Representation", EMNLP 2014. The published files hold
``token v1 .. vd`` per line, separated by single blanks, without a header; tokens of ``glove.840B.300d`` may themselves
hold blanks, so a line is read from its end. Only the vectors of words that occur are kept, in a file beside the toy
checkpoints that is mapped into memory and serves the next run (:mod:`extractors.word_cache`).

A word is looked up as written, then in lower case, then the same without what follows an apostrophe. Words without a
vector are counted; a text in which no word has one is a fault, never a zero vector: it would stand for nothing and
equal every other such text. Chinese is the common case: the published vectors are of English words, and Chinese is
written without blanks, so that a clause counts as one word. How many texts are lost is said once, with the reason.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import numpy as np
from pydantic import Field

from extractors.checkpoint import TINY, Checkpoint, CheckpointChoiceError, CheckpointError, resolve_file
from extractors.spec import EncodedBatch, EncoderSpec, Modality, RowFault, StoredType, StrictModel, require_rows
from extractors.text import EMPTY_TEXT, normalise
from extractors.toy import TOY_GLOVE_FILE
from extractors.word_cache import WordCache, WordVectors

_log = logging.getLogger(__name__)

NAME = "glove"
LICENCE = "PDDL-1.0"
ON_DEVICE = False  # a mean of a few vectors gains nothing from a GPU
_CHINESE = re.compile("[\u3400-\u9fff]")
_ADVICE = (
    "they are Chinese and the vectors are of English words: encode an English column by text=COLUMN, such as "
    "text=title_en or text=asr_en of ShortVideo"
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_TEXTS_AT_ONCE = 4096
_LINES_FOR_WIDTH = 200
_CACHES = "words"  # folder beside the toy checkpoints


class Config(StrictModel):
    """Settings.

    Attributes:
        checkpoint: Hub id, a local ``.txt`` or ``.zip`` file, or ``tiny`` for seeded random vectors.
        revision: Commit of the hub repository; needed with a hub id.
        file: File in the hub repository.
        member: File inside the zip; needed where it holds several.
        dtype: Type of the stored numbers.
        shard_size: Texts in one shard of the store.
    """

    checkpoint: str = "stanfordnlp/glove"
    revision: str | None = None
    file: str = "glove.840B.300d.zip"
    member: str | None = None
    pooling: Literal["mean"] = "mean"
    dtype: StoredType = "float32"
    shard_size: int = Field(default=8192, ge=1)


class GloveEncoder:
    """Word vectors, read as far as they are needed.

    Attributes:
        spec: Identity of the feature.
        batch_size: Texts in one batch.
    """

    def __init__(self, spec: EncoderSpec, table: VectorFile, cache: WordCache) -> None:
        self.spec = spec
        self.batch_size = _TEXTS_AT_ONCE
        self._table = table
        self._cache = cache
        self._vectors = WordVectors(np.empty((0, table.dim), dtype=np.float32), {})  # of all words asked for so far

    def announce(self, texts: Sequence[str], /) -> None:
        """Find the vectors of all texts to come, in one pass over the file or none; without it, each batch is a pass.

        Texts of which no word has a vector are counted in one warning, when they are announced first.
        """
        if self._read(texts):
            self._warn_of_lost(texts)

    def _read(self, texts: Sequence[str]) -> bool:
        """Look up the words that were not looked up before; whether there were any."""
        spellings = {spelling for text in texts for word in words(text) for spelling in candidates(word)}
        unknown = spellings - self._vectors.keys()
        if unknown:
            self._vectors = self._cache.cover(self._vectors.keys() | unknown, self._table.read)
        return bool(unknown)

    def _warn_of_lost(self, texts: Sequence[str]) -> None:
        lost = [text for text in texts if self._is_lost(words(text))]
        if not lost:
            return
        chinese = sum(bool(_CHINESE.search(text)) for text in lost)
        advice = f"; {chinese} of them: {_ADVICE}" if chinese else ""
        message = "%s: no word of %d of %d texts has a vector; they go to quarantine as all_oov, the first is %r%s"
        _log.warning(message, NAME, len(lost), len(texts), normalise(lost[0])[:60], advice)

    def _is_lost(self, found: Sequence[str]) -> bool:
        """Whether there are words, and none has a vector."""
        return bool(found) and all(self._vector(word) is None for word in found)

    def encode(self, batch: Sequence[str], /) -> EncodedBatch:
        """Encode texts.

        Args:
            batch: At least one text.

        Returns:
            ``embedding`` float32 ``[b, d]``; texts without words, and those of unknown words alone, are faults.
            ``counts`` holds ``tokens`` and ``oov_tokens``.
        """
        require_rows(batch, encoder=NAME)
        self._read(batch)
        embedding = np.full((len(batch), self.spec.dim), np.nan, dtype=np.float32)
        faults: dict[int, RowFault] = {}
        tokens = unknown = 0
        for row, text in enumerate(batch):
            found = [self._vector(word) for word in words(text)]
            known = [vector for vector in found if vector is not None]
            tokens += len(found)
            unknown += len(found) - len(known)
            if known:
                embedding[row] = np.mean(known, axis=0, dtype=np.float64)
            elif found:
                faults[row] = _all_oov(text)
            else:
                faults[row] = EMPTY_TEXT if not normalise(text) else RowFault("no_words", "the text holds no word")
        return EncodedBatch(embedding, faults=faults, counts={"tokens": tokens, "oov_tokens": unknown})

    def _vector(self, word: str) -> np.ndarray | None:
        found = (self._vectors[spelling] for spelling in candidates(word))
        return next((vector for vector in found if vector is not None), None)


def _all_oov(text: str) -> RowFault:
    found = words(text)
    advice = f"; {_ADVICE}" if _CHINESE.search(text) else ""
    return RowFault("all_oov", f"none of the {len(found)} words has a vector, first {found[0][:40]!r}{advice}")


def words(text: str) -> list[str]:
    """Runs of letters and digits, with apostrophes inside."""
    return _WORD.findall(normalise(text))


def candidates(word: str) -> tuple[str, ...]:
    """Spellings under which a word is looked up, best first."""
    stem = re.split("['’]", word, maxsplit=1)[0]
    return tuple(dict.fromkeys((word, word.lower(), stem, stem.lower())))


class VectorFile:
    """A text file of word vectors, plain or in a zip.

    Attributes:
        dim: Width of the vectors.

    Raises:
        CheckpointChoiceError: When a zip holds several files and none is named.
        CheckpointError: When the file is not of GloVe's format.
    """

    def __init__(self, path: Path, member: str | None) -> None:
        self.path = path
        self.member = _member(path, member) if zipfile.is_zipfile(path) else None
        with self._open() as stream:
            self.dim = _width(islice(stream, _LINES_FOR_WIDTH), path)

    def read(self, wanted: AbstractSet[str]) -> Iterator[tuple[str, np.ndarray]]:
        """The wanted words that are in the file with their vectors float32 ``[d]``; the first of equal words counts.

        Raises:
            CheckpointError: Naming the line that cannot be read.
        """
        needed = {word.encode() for word in wanted}
        with self._open() as stream:
            for number, line in enumerate(stream, start=1):
                if line[: line.find(b" ")] not in needed:
                    continue
                fields = line.rstrip(b"\r\n").rsplit(b" ", self.dim)
                if fields[0] in needed:  # and no token that holds blanks
                    yield fields[0].decode(), self._parse(fields[1:], number)
                    needed.discard(fields[0])

    def _parse(self, fields: list[bytes], number: int) -> np.ndarray:
        try:
            vector = np.array([float(value) for value in fields], dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        if len(vector) != self.dim or not np.isfinite(vector).all():
            raise CheckpointError(f"{self.path}, line {number}: expected a token and {self.dim} finite numbers")
        return vector

    @contextmanager
    def _open(self) -> Generator[IO[bytes]]:
        if self.member is None:
            with self.path.open("rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield stream


def _member(path: Path, member: str | None) -> str:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".txt", ".vec"))]
    if member is None and len(names) == 1:
        return names[0]
    if member in names:
        return str(member)
    there = ", ".join(names) or "no text file"
    raise CheckpointChoiceError(f"encoder {NAME}: {path} holds {there}; pass member=NAME (got {member!r})")


def _width(lines: Iterator[bytes], path: Path) -> int:
    """Numbers per line: the fewest blanks in a line, since a token may hold blanks itself."""
    blanks = [line.rstrip(b"\r\n").count(b" ") for line in lines]
    if not blanks or min(blanks) < 2:
        raise CheckpointError(
            f"{path}: expected lines of a token and its numbers, separated by blanks, without a header"
        )
    return min(blanks)


def reads(config: Config) -> Modality:  # noqa: ARG001 - every encoder has the same signature
    """Texts, under all settings."""
    return "text"


def describe(config: Config, *, toy_root: Path) -> EncoderSpec:
    """Identity of the feature; reads the file once for its hash, and keeps no vector."""
    return _described(config, toy_root)[0]


def build(config: Config, *, device: str, toy_root: Path) -> GloveEncoder:
    """Open the table; a mean of a few vectors gains nothing from a GPU, so ``device`` is not used."""
    del device
    spec, table = _described(config, toy_root)
    cache = WordCache(toy_root / _CACHES, f"{spec.checkpoint.weights_sha256}:{table.member}", table.dim)
    return GloveEncoder(spec, table, cache)


def _described(config: Config, toy_root: Path) -> tuple[EncoderSpec, VectorFile]:
    file = TOY_GLOVE_FILE if config.checkpoint == TINY else config.file
    checkpoint: Checkpoint = resolve_file(
        NAME, config.checkpoint, revision=config.revision, toy_root=toy_root, licence=LICENCE, file=file
    )
    table = VectorFile(checkpoint.path, config.member)
    spec = EncoderSpec(
        name=NAME,
        modality="text",
        checkpoint=checkpoint.spec(),
        sampling={},
        preprocessing={"normalisation": "nfc-blanks", "words": "letters-digits", "lookup": "as-is, lower, stem"}
        | ({"member": table.member} if table.member else {}),
        pooling="mean of known words",
        precision="fp32",
        dtype=config.dtype,
        dim=table.dim,
        columns={"embedding": (table.dim,)},
    )
    return spec, table
