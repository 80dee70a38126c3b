# SPDX-License-Identifier: Apache-2.0
"""``gencomp jobs``, ``cancel``, ``report`` and ``ledger``: what a server has done and does."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from gencomp_protocol import Client
from gencomp_protocol.errors import BadKnob, UnknownJob
from gencomp_server.engine import graph
from gencomp_server.ledger import COLUMNS, Ledger, moment_of

DONE = 0
Connect = Callable[["str | None"], AbstractContextManager[Client]]


def add_jobs(commands: Any, connect: Connect) -> None:
    """Add the commands to a parser's subcommands.

    Args:
        commands: The parser's subcommands.
        connect: Makes a client of the server at an address, or of the one that is found.
    """
    jobs = commands.add_parser(
        "jobs",
        help="list the jobs of a server, or show one of them",
        description="List the jobs of a server; 'jobs show ID' draws a job's stages: state, time "
        "and size of each, and which needs which.",
    )
    jobs.set_defaults(command=lambda args: _jobs(args, connect))
    jobs.add_argument("do", nargs="?", choices=("show",), metavar="show", help="show one job")
    jobs.add_argument("job", nargs="?", default="", metavar="ID", help="id of the job to show")
    jobs.add_argument("--json", action="store_true", help="one JSON list; of one job, one map")
    cancel = commands.add_parser("cancel", help="cancel a job of a server")
    cancel.set_defaults(command=lambda args: _cancel(args, connect))
    cancel.add_argument("job", metavar="ID", help="id of the job; see gencomp jobs")
    report = commands.add_parser(
        "report",
        help="gather for support what there is on a job",
        description="Gather for support what there is on a job, in one zip: stages, log, versions, "
        "settings, headers. No plate, no secret, and no prompt unless asked for.",
    )
    report.set_defaults(command=lambda args: _report(args, connect))
    report.add_argument("job", metavar="ID", help="id of the job, as its error has it")
    report.add_argument("--out", type=Path, metavar="FILE.zip", help="default: beside you")
    report.add_argument("--with-prompts", action="store_true", help="leave prompts in it")
    report.add_argument(
        "--spool", type=Path, metavar="DIR", help="spool of a server that is not running"
    )
    for one in (jobs, cancel, report):
        one.add_argument("--server", metavar="tcp://HOST:PORT", help="default: the one found")
    ledger = commands.add_parser(
        "ledger",
        help="list every job that was delivered from this machine",
        description="List every job that was delivered: show, shot, system, weights and their "
        "licence class, the prompt's BLAKE2b-256, seed and frames.",
    )
    ledger.set_defaults(command=_ledger)
    ledger.add_argument("--from", metavar="DATE", dest="since", help="first day: 2026-03-01")
    ledger.add_argument("--before", metavar="DATE", help="day that it ends before; default: none")
    ledger.add_argument("--csv", action="store_true", help="comma-separated values, all columns")
    ledger.add_argument("--file", type=Path, help="the ledger; default: the setting 'ledger'")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _jobs(args: argparse.Namespace, connect: Connect) -> int:
    if args.do:
        return _show(args, connect)
    with connect(args.server) as client:
        found = client.jobs()
    if args.json:
        _say(json.dumps(found, indent=2, default=str))
        return DONE
    if not found:
        _say("There are no jobs.")
    for job in found:
        _say(f"{job['job']}  {job['state']}  {job.get('system', '')}")
    return DONE


def _show(args: argparse.Namespace, connect: Connect) -> int:
    if not args.job:
        raise UnknownJob("Which job is not said.", hint="gencomp jobs lists them.")
    with connect(args.server) as client:
        found = {**client.job(args.job), **client.graph(args.job)}
    if args.json:
        _say(json.dumps(found, indent=2, default=str))
        return DONE
    rows = [graph.from_plain(one) for one in found["stages"]]
    _say(_headline(found))
    error = found.get("error") or {}
    if error:
        _say(f"{error.get('message', '')} {error.get('hint', '')}".strip())
    _say("\n".join(graph.lines(rows)) if rows else "No stage has begun.")
    return DONE


def _headline(job: dict[str, Any]) -> str:
    words = [job["job"], job.get("system", ""), job.get("frames", ""), job["state"]]
    started, ended = job.get("started_s"), job.get("ended_s")
    if started and ended:
        words.append(f"after {ended - started:.1f} s")
    return "  ".join(word for word in words if word)


def _cancel(args: argparse.Namespace, connect: Connect) -> int:
    with connect(args.server) as client:
        client.cancel(args.job)
    _say(f"{args.job} is cancelled.")
    return DONE


# --- for support ---------------------------------------------------------------------------------


def _report(args: argparse.Namespace, connect: Connect) -> int:
    from gencomp_server.report import write_zip

    if args.spool is not None:
        files = _gathered_from(args.spool, args.job, args.with_prompts)
    else:
        with connect(args.server) as client:
            files = client.report(args.job, with_prompts=args.with_prompts)
    path = args.out or Path(f"gencomp-report-{args.job}.zip")
    write_zip(path, args.job, files)
    _say(f"The report is {path}: {', '.join(sorted(files))}.")
    if args.with_prompts:
        _say("It holds the artist's prompts.")
    return DONE


def _gathered_from(spool: Path, job_id: str, with_prompts: bool) -> dict[str, Any]:
    """Gather a report out of a spool that no server uses.

    Raises:
        UnknownJob: There is no such job in it.
    """
    from gencomp_server.config import load_config
    from gencomp_server.engine.jobtable import JobTable
    from gencomp_server.engine.spool import Spool
    from gencomp_server.report import Server, gather

    loaded = load_config({"spool": spool})
    if not (spool / "gencomp.db").is_file():
        raise UnknownJob(f"{spool} is no server's spool.", hint="It holds gencomp.db.")
    place = Spool(spool)
    with closing(JobTable(place.database)) as table:
        job = table.get(job_id)
        if job is None:
            raise UnknownJob(f"The spool {spool} has no job {job_id[:64]!r}.")
        rows = [graph.stopped(row) for row in table.stages(job_id)]
        server = Server(loaded.config, loaded.sources)
        return gather(job, rows, table.warnings(job_id), place, server, with_prompts=with_prompts)


# --- for a production ----------------------------------------------------------------------------


def _ledger(args: argparse.Namespace) -> int:
    from gencomp_server.config import load_config

    if args.file is not None and not args.file.exists():
        raise BadKnob(
            f"There is no ledger {args.file}.",
            hint="gencomp config explain ledger says where it is.",
        )
    path = args.file or load_config().config.ledger
    since = moment_of(args.since) if args.since else 0.0
    before = moment_of(args.before) if args.before else None
    found = Ledger(path).entries(since, before)
    if args.csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        names = [name for name in COLUMNS if name != "delivered_s"]
        table.writerow(["delivered", *names])
        for one in found:
            own = {**vars(one), "show": _cell(one.show), "shot": _cell(one.shot)}
            table.writerow([one.delivered, *(own[name] for name in names)])
        return DONE
    if not found:
        _say("The ledger has no job of that time.")
    for one in found:
        licence = one.licence_class or "none"
        where = " ".join(word for word in (one.show, one.shot) if word) or "-"
        _say(
            f"{one.delivered}  {one.job}  {where}  {one.system}  "
            f"{one.backbone or 'no model'} ({licence})  seed {one.seed}  {one.frames}"
        )
    return DONE


def _cell(name: str) -> str:
    """Return a name that a client gave so that no spreadsheet takes it for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@") else name
