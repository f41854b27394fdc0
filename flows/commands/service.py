"""``reelstore deploy``, ``reelstore doctor`` and ``reelstore demo``."""

from __future__ import annotations

import argparse

from flows.commands.outcome import Outcome, table
from flows.settings import Settings


def deploy(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Bring the server that ``PREFECT_API_URL`` names up to date with ``prefect.yaml``."""
    from flows import deploy as deployment

    changes, cleared = deployment.run(dry_run=options.dry_run, settings=settings)
    payload = {"changes": [str(change) for change in changes], "cleared": cleared, "dry_run": options.dry_run}
    if not changes:
        text = (
            "nothing to change: pool, queues, limits, deployments, schedules and automations are as prefect.yaml says"
        )
        return Outcome(payload, text)
    verb = "would" if options.dry_run else "did"
    return Outcome(payload, "\n".join(f"{verb} {change}" for change in changes))


def doctor(settings: Settings, _: argparse.Namespace) -> Outcome:
    """Check the installation; exit code 1 when something that is needed does not work."""
    from flows.doctor import examine

    findings = examine(settings)
    rows = [[finding.state, finding.what, finding.detail, finding.advice] for finding in findings]
    failed = any(finding.state == "FAIL" for finding in findings)
    payload = {"ok": not failed, "findings": [vars(finding) for finding in findings]}
    return Outcome(payload, table(("state", "what", "found", "what to do"), rows), code=1 if failed else 0)


def demo(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Run the whole pipeline on generated data through a local Prefect server and worker."""
    from flows.demo import run_demo

    return run_demo(settings, port=options.port)
