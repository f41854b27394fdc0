"""The record of a run: what was trained on what, how it was judged, and what came out. No torch here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from models.errors import RecordError
from models.files import write_atomically

RECORD_FILE = "record.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class EvaluationProtocol(_Part):
    """How ranks were counted; printed next to every number."""

    history: Literal["unmasked and masked"] = "unmasked and masked"
    ties: Literal["pessimistic"] = "pessimistic"
    candidates: Literal["all items, padding excluded"] = "all items, padding excluded"
    n_candidates: int = Field(ge=1)
    n_users: dict[str, int]
    without_history: dict[str, int] = Field(default_factory=dict)
    n_tied: dict[str, int] = Field(default_factory=dict)
    n_errors: dict[str, int] = Field(default_factory=dict)
    selected_by: str = "valid ndcg@10"


class SplitMetrics(_Part):
    """Metrics of one split, with and without the history among the candidates."""

    unmasked: dict[str, float]
    masked: dict[str, float]


class StoreVersion(_Part):
    """The exact feature store that a run read."""

    name: str
    version: int = Field(ge=1)

    def __str__(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


class RunRecord(_Part):
    """Everything needed to repeat a run and to judge its numbers.

    Attributes:
        run_id: Name of the run's folder.
        model: Name of the recommender.
        dataset: Name of the dataset.
        dataset_version: Version of the prepared dataset's manifest.
        stores: Feature stores that the run read.
        seed: Seed of initialisation, order and draws.
        config: The resolved configuration.
        git_sha: Commit of the code, with ``+dirty`` for uncommitted changes; None outside a repository.
        lock_hash: sha256 of ``requirements.lock``.
        protocol: How ranks were counted.
        metrics: By split.
        selected_epoch: The epoch whose weights were kept, chosen on validation.
        timings: Seconds by stage.
        created_at: When the record was written.
        extra: What a model adds, such as the signal left at the last diffusion step.
    """

    run_id: str
    model: str
    dataset: str
    dataset_version: str
    stores: tuple[StoreVersion, ...] = ()
    seed: int
    config: dict[str, Any]
    git_sha: str | None
    lock_hash: str | None
    protocol: EvaluationProtocol
    metrics: dict[Literal["valid", "test"], SplitMetrics]
    selected_epoch: int
    timings: dict[str, float] = Field(default_factory=dict)
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    extra: dict[str, Any] = Field(default_factory=dict)

    def write(self, run_dir: Path) -> Path:
        """Write ``record.json`` into the run's folder, atomically."""
        path = run_dir / RECORD_FILE
        text = self.model_dump_json(indent=2) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return path

    @classmethod
    def read(cls, run_dir: Path) -> RunRecord:
        """Read ``record.json``.

        Raises:
            RecordError: When it is absent or is no record.
        """
        path = run_dir / RECORD_FILE
        if not path.is_file():
            raise RecordError(f"{path}: no record here; the run did not finish (train it again to resume it)")
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise RecordError(f"{path}: not a run record: {where}: {fault['msg']}") from None
