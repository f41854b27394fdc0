"""The ``reelstore`` command: parsing and dispatch. Everything heavy is imported inside the command that needs it.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from flows import errors, settings

if TYPE_CHECKING:
    from flows.commands.outcome import Outcome

PAIRS = "key=value"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``reelstore``; ``sys.argv`` when None.

    Returns:
        The exit code.
    """
    options = _parse(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING if options.json else logging.INFO, format="%(levelname)s %(message)s"
    )
    for noisy in ("httpx", "httpcore"):  # one line per request would drown the progress
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        outcome = _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished shards and downloads are kept, the same command goes on from there\n")
        return 130
    except Exception as error:
        code = errors.exit_code(error)
        if code is None:
            raise
        _print_error(error, as_json=options.json)
        return code
    if options.json:
        text = json.dumps(_with_json_numbers(outcome.payload), default=str, allow_nan=False)
    else:
        text = outcome.text
    if outcome.payload:  # empty where another process speaks for this one
        sys.stdout.write(text.rstrip("\n") + "\n")
    return outcome.code


def _with_json_numbers(value: Any) -> Any:
    """The value with null for NaN and the infinities, which JSON cannot write."""
    if isinstance(value, Mapping):
        return {key: _with_json_numbers(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_with_json_numbers(inner) for inner in cast("Sequence[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; ``key=value`` may stand before and after options, which argparse alone does not take."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    pairs = [word for word in rest if "=" in word and not word.startswith("-")]
    unknown = [word for word in rest if word not in pairs]
    if unknown or (pairs and not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or pairs)}")
    if pairs:
        options.overrides = [*options.overrides, *pairs]
    return options


def _run(options: argparse.Namespace) -> Outcome:
    module_name, function = options.run.split(":")
    module = importlib.import_module(f"flows.commands.{module_name}")
    return getattr(module, function)(settings.load(options.root), options)


def _print_error(error: Exception, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": str(error), "kind": type(error).__name__}) + "\n")
    sys.stderr.write(f"reelstore: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelstore",
        description="Datasets, feature stores and trainings of multimodal sequential recommenders.",
    )
    common = argparse.ArgumentParser(add_help=False)
    for target, default in ((parser, None), (common, argparse.SUPPRESS)):
        target.add_argument("--root", default=default, help="where data lies (REELSTORE_ROOT; default ./data)")
        target.add_argument(
            "--json",
            action="store_true",
            default=default or False if target is parser else argparse.SUPPRESS,
            help="print one JSON object; logs go to stderr",
        )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: str, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text, description=help_text, parents=[common])
        command.set_defaults(run=run)
        return command

    add("datasets", "data:datasets", "every dataset: files, licence, what is on disk, access notes")
    prepare = add("prepare", "data:prepare", "download, parse, clean, k-core, split")
    prepare.add_argument("dataset")
    prepare.add_argument("overrides", nargs="*", metavar=PAIRS, help="such as source=PATH_OR_URL k_user=5 limit=200")
    extract = add("extract", "features:extract", "decode or tokenise, encode, commit a snapshot per feature")
    extract.add_argument("dataset", help="a prepared dataset, or a folder: every media file in it is an item")
    extract.add_argument(
        "--features", default=None, help="comma-separated; default: all that the dataset has media for"
    )
    extract.add_argument(
        "overrides",
        nargs="*",
        metavar=PAIRS,
        help="such as checkpoint=tiny precision=bf16 keep_frames=centre_crop verify=0.01",
    )
    add("stores", "stores:stores", "every feature store with version, rows and spec")
    _add_store(add("store", "stores:store", "look after one store"))
    _add_models(add)
    add("deploy", "service:deploy", "register pool, limits, deployments, schedules and automations").add_argument(
        "--dry-run", action="store_true", help="print what would change"
    )
    add("doctor", "service:doctor", "check versions, server, worker, device, disk and hub access")
    demo = add("demo", "service:demo", "the whole pipeline on generated data through a local Prefect server")
    demo.add_argument("--port", type=int, default=0, help="port of the local server; 0 takes a free one")
    return parser


def _add_store(store: argparse.ArgumentParser) -> None:
    actions = ("show", "verify", "diff", "quarantine", "retry", "compact", "tag", "export", "gc")
    store.add_argument("action", choices=actions)
    store.add_argument("name", help="<dataset>/<feature>, or an address such as s3://bucket/stores/microlens-50k/vit")
    store.add_argument(
        "words", nargs="*", metavar="…",
        help="for diff: the two versions; for tag: TAG [VERSION], without them the tags are listed; for export: "
        "the version or tag, the latest when absent",
    )  # fmt: skip
    store.add_argument("--keep", type=int, default=3, help="for gc: how many versions to keep, besides tagged ones")
    store.add_argument("--grace", default="7d", help="for gc: younger files are never removed; such as 7d, 12h, 30m")
    store.add_argument("--apply", action="store_true", help="for gc: remove; without it only list")
    store.add_argument("--move", action="store_true", help="for tag: move a tag that is there")
    store.add_argument("--remove", action="store_true", help="for tag: remove the tag, not its version")
    store.add_argument("--target-mb", type=int, default=256, help="for compact: MB of vectors per shard")
    store.add_argument(
        "--zstd", action="store_true", help="for compact and export --parquet: compress, for copies far away"
    )
    for form in ("npy", "parquet", "lance", "hf"):
        store.add_argument(f"--{form}", metavar="DIR", default=None, help=f"for export: write {form} there")
    store.add_argument("--reason", default=None, help="for retry: only rows with this reason")


def _add_models(add: _Add) -> None:
    train = add("train", "training:train", "train, select on validation, open the test split once")
    train.add_argument("experiment", help="a file of configs/experiments")
    train.add_argument("overrides", nargs="*", metavar=PAIRS, help="such as seed=3 training.epochs=20 missing=drop")
    train.add_argument(
        "--sink", action="append", default=[], metavar="NAME", help="tell it of every epoch: tensorboard, mlflow"
    )
    sweep = add("sweep", "sweep:sweep", "train a grid, or one axis after the other, and choose by validation")
    sweep.add_argument("sweep", help="a file of configs/sweeps")
    sweep.add_argument("overrides", nargs="*", metavar=PAIRS, help="for every run, such as training.epochs=20")
    study = add("study", "study:study", "train what a figure or a table of a paper compares, and draw it")
    study.add_argument("study", nargs="?", help="a file of configs/studies; without it, the studies are listed")
    study.add_argument(
        "overrides", nargs="*", metavar=PAIRS, help="such as experiment=mealrec-microlens-small 'seeds=[0, 1]'"
    )
    evaluate = add("evaluate", "training:evaluate", "rank again with the best checkpoint of a run")
    evaluate.add_argument("run_id")
    lineage = add("lineage", "lineage:lineage", "what a run was made from, and what of it is gone or changed since")
    lineage.add_argument("run_id")
    report = add("report", "training:report", "one self-contained HTML page")
    report.add_argument("runs", nargs="*", help="run ids; default: all")
    report.add_argument("--out", default=None, help="the file to write; default ROOT/report.html")
    _add_serving(add)


def _add_serving(add: _Add) -> None:
    recommend = add("recommend", "serving:recommend", "the best items for a user, or for all of them")
    recommend.add_argument("run_id")
    who = recommend.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="the user's id in the dataset")
    who.add_argument("--all-users", action="store_true", help="write the lists of all users to --out")
    recommend.add_argument("--out", default=None, help="for --all-users: the Parquet file to write")
    recommend.add_argument("-k", type=int, default=10, help="how many")
    index = add("index", "serving:index", "the items of a run as a faiss index, for an exact search by inner product")
    index.add_argument("run_id")
    index.add_argument("--out", required=True, metavar="DIR", help="the folder for items.faiss and items.parquet")
    slices = add("slices", "serving:slices", "test metrics by history length and by popularity, and what lists hold")
    slices.add_argument("run_id")
    slices.add_argument("-k", type=int, default=10, help="cut-off of the metrics and length of the lists")
    tails = add("tails", "serving:tails", "test metrics with the last fifth of a held-out user's rows as targets")
    tails.add_argument("run_id")
    tails.add_argument("-k", type=int, nargs="+", default=[20, 50], help="cut-offs of the metrics")
    tails.add_argument(
        "--every-position", action="store_true", help="every row of a held-out user is a target, after those before it"
    )
    probe = add("probe", "serving:probe", "how well a linear layer tells an item's category from its trained vector")
    probe.add_argument("run_id")
    probe.add_argument("--folds", type=int, default=5, help="parts of the cross-validation")
    for reads_categories in (slices, probe):
        reads_categories.add_argument(
            "--separator", help="an item counts under what stands before it in its category, such as ', '"
        )


if TYPE_CHECKING:
    from typing import Protocol

    class _Add(Protocol):
        def __call__(self, name: str, run: str, help_text: str) -> argparse.ArgumentParser: ...


if __name__ == "__main__":
    sys.exit(main())
