# One image for the server, its services, the workers and the one-time set-up: the same pinned list everywhere.
# g++ is for `compile = true` of an encoder. Everything is installed while it is built; nothing is when it runs.
FROM python:3.11.14-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ARG EXTRA=cpu

# The pinned list first: a change of our own code reuses this layer.
COPY requirements.lock requirements-gpu.lock pyproject.toml README.md LICENSE Makefile ./
RUN mkdir datasets_spec extractors feature_store flows models && make setup EXTRA=${EXTRA}

COPY datasets_spec datasets_spec
COPY extractors extractors
COPY feature_store feature_store
COPY models models
COPY flows flows
COPY configs configs
COPY prefect.yaml ./
RUN .venv/bin/python -m compileall -q datasets_spec extractors feature_store models flows

# Volumes take over the owner of the folders that they are mounted on.
RUN useradd --uid 1000 --create-home reelstore \
    && install -d -o reelstore -g reelstore /data /cache
USER reelstore
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REELSTORE_ROOT=/data \
    HF_HOME=/cache/huggingface \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_EPHEMERAL_ENABLED=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["reelstore", "--help"]
