# One image for the server, its services, the workers and the one-time set-up: the same pinned list everywhere.
FROM python:3.11.14-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends make git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ARG EXTRA=cpu
COPY pyproject.toml requirements.lock requirements-gpu.lock README.md LICENSE Makefile ./
COPY datasets_spec datasets_spec
COPY extractors extractors
COPY feature_store feature_store
COPY models models
COPY flows flows
COPY configs configs
COPY prefect.yaml ./
RUN make setup EXTRA=${EXTRA}
ENV PATH=/app/.venv/bin:$PATH \
    REELSTORE_ROOT=/data \
    PREFECT_SERVER_EPHEMERAL_ENABLED=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["reelstore", "--help"]
