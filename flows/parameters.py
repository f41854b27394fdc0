"""Types of parameters that several flows share; the server refuses what does not fit them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flows.jobs.shards import SHARDS_PATTERN

#: A day such as 2026-11-01.
DAY_PATTERN = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"

Options = dict[str, Any] | None
Limit = Annotated[int | None, Field(ge=1)]
Only = Literal["failed"] | None
Shards = Annotated[str, Field(pattern=SHARDS_PATTERN)] | None
Since = Annotated[str, Field(pattern=DAY_PATTERN)] | None
Verify = Annotated[float, Field(ge=0, le=1)]
Workers = Annotated[int, Field(ge=1, le=64)]
Runner = Literal["local", "ray", "dask"]
