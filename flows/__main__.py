"""`python -m flows FLOW PRESET`: the same presets without a server, and the commands that explain the store."""

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.graph import Planned, Resolver, default_store, plan, run
from flows.registry import FLOWS
from tasks.artifact import open_artifact
from tasks.artifact.catalog import render_verdict
from tasks.artifact.expiry import gc, render_gc
from tasks.artifact.lineage import lineage, render_lineage
from tasks.errors import ConfigError, NestlingError

EXIT_CONFIG = 78  # sysexits EX_CONFIG; design 4
COMMANDS = ("plan", "lineage", "gc", "browse", "chat")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn every failure into one screen of text and a typed exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("flows", "tasks", "model"):
        logging.getLogger(package).setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return args.command(args)
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except ValidationError as error:
        print(_validation_text(error), file=sys.stderr)
        return EXIT_CONFIG
    except NestlingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (ValueError, FileNotFoundError, PermissionError, ModuleNotFoundError) as error:
        print(f"error: {error}\n(details: {_keep_traceback()})", file=sys.stderr)
        return EXIT_CONFIG
    except Exception as error:
        print(
            f"error: {type(error).__name__}: {error}\n"
            f"This is a fault in the code, not in your input. The traceback is in {_keep_traceback()}. "
            "What was finished is kept; please report it with that file.",
            file=sys.stderr,
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nestling",
        description="Raw pages in; a released, evaluated, licensed model out.",
        epilog="example: nestling factory tiny",
    )
    commands = parser.add_subparsers(required=True, metavar="FLOW or COMMAND")
    for name, spec in FLOWS.items():
        example = "cpt/27b --set search=false" if name == "preflight" else "tiny"
        flow = commands.add_parser(
            name, help=f"run it; presets: {', '.join(spec.presets)}", epilog=f"example: nestling {name} {example}"
        )
        training = " (or FLOW/PRESET of a training run)" if name == "preflight" else ""
        flow.add_argument("preset", help=", ".join(spec.presets) + training)
        _graph_options(flow)
        flow.add_argument(
            "--rerun",
            action="append",
            default=[],
            metavar="STAGE[/NAME]",
            help="make this stage again although it is finished",
        )
        flow.set_defaults(command=_preflight if name == "preflight" else _run, flow=name)
    planner = commands.add_parser(
        "plan",
        help="what a run would do, and why",
        epilog="example: nestling plan cpt tiny --set peak_lr=0.0005",
    )
    planner.add_argument("flow", choices=sorted(FLOWS))
    planner.add_argument("preset")
    _graph_options(planner)
    planner.add_argument("--json", action="store_true", help="for programs")
    planner.set_defaults(command=_plan)
    tracer = commands.add_parser(
        "lineage",
        help="where an artifact comes from, with licences",
        epilog="example: nestling lineage .nestling/store/train/tiny-cpt-0123456789ab",
    )
    tracer.add_argument("artifact", help="URL or path of an artifact, or FLOW/PRESET[:OUTPUT] of a finished run")
    tracer.add_argument("--store", default=default_store())
    tracer.set_defaults(command=_lineage)
    collect = commands.add_parser(
        "gc",
        help="remove artifacts that no preset reaches (dry run unless --delete)",
        epilog="example: nestling gc --keep factory/tiny --older-than-days 14 --delete",
    )
    collect.add_argument("--keep", action="append", default=[], metavar="FLOW/PRESET", help="what stays reachable")
    collect.add_argument("--older-than-days", type=float, default=14.0, help="expiry of unreachable artifacts (days)")
    collect.add_argument("--delete", action="store_true", help="really delete; without it only the list is shown")
    collect.add_argument("--store", default=default_store())
    collect.set_defaults(command=_gc)
    browser = commands.add_parser(
        "browse",
        help="look into an artifact in a browser: search, dropped rows, what other thresholds would keep",
        epilog="example: nestling browse .nestling/store/clean/tiny-ja-0123456789ab",
    )
    browser.add_argument("artifact", help="URL or path of an artifact, or FLOW/PRESET[:OUTPUT] of a finished run")
    browser.add_argument("--store", default=default_store())
    browser.add_argument("--port", type=int, default=8420, help="of the page (default 8420); 0 takes a free one")
    browser.add_argument("--host", default="127.0.0.1", help="address to listen at; the default is this machine alone")
    browser.set_defaults(command=_browse)
    chat = commands.add_parser(
        "chat",
        help="talk to a trained or released model in the terminal",
        epilog="example: nestling chat release/tiny",
    )
    chat.add_argument("artifact", help="FLOW/PRESET[:OUTPUT] of a finished run, or the URL of an artifact")
    chat.add_argument("--store", default=default_store())
    chat.set_defaults(command=_chat)
    return parser


def _graph_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="change one knob of the preset; KEY may reach into another flow as FLOW/PRESET.KEY",
    )
    parser.add_argument("--store", default=default_store(), help="where artifacts live (any fsspec URL)")


def parse_changes(flow: str, preset: str, pairs: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """`KEY=VALUE` and `FLOW/PRESET.KEY=VALUE` to changes per preset. Values are JSON, or else plain text.

    Raises:
        ConfigError: a pair without `=`.
    """
    changes: dict[tuple[str, str], dict[str, Any]] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair!r}: it needs KEY=VALUE, because a knob has a name. Write --set key=value.")
        try:
            value: Any = json.loads(text)
        except json.JSONDecodeError:
            value = text
        target = (flow, preset)
        if "/" in key:
            where, _, key = key.partition(".")
            other, _, other_preset = where.partition("/")
            target = (other, other_preset)
        changes.setdefault(target, {})[key] = value
    return changes


def _resolver(args: argparse.Namespace) -> Resolver:
    return Resolver(FLOWS, parse_changes(args.flow, args.preset, args.changes))


def _run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    outputs = _resolver(args).outputs(args.flow, args.preset)
    made = run(outputs, args.store, prefect=False, rerun=frozenset(args.rerun))
    for name, artifact in made.items():
        print(f"{name}: {artifact.url}")
    for artifact in made.values():
        for entry in artifact.files():
            if entry.path == "report.html":
                print(f"report: {artifact.file_url(entry.path)}")
    print(f"{args.flow}/{args.preset} done in {time.monotonic() - began:.0f} s")
    return 0


def _preflight(args: argparse.Namespace) -> int:
    from flows.preflight import target
    from tasks.preflight.stage import SUMMARY, require_fit

    preset, pairs = target(args.preset, args.changes)
    outputs = Resolver(FLOWS, parse_changes(args.flow, preset, pairs)).outputs(args.flow, preset)
    made = run(outputs, args.store, prefect=False, rerun=frozenset(args.rerun))["main"]
    print(made.read_bytes(SUMMARY).decode(), end="")
    print(f"report: {made.file_url('report.html')}")
    require_fit(made)
    return 0


def _plan(args: argparse.Namespace) -> int:
    planned = plan(_resolver(args).outputs(args.flow, args.preset), args.store)
    if args.json:
        print(json.dumps([_planned_json(item) for item in planned], ensure_ascii=False, indent=1))
    else:
        print(render_plan(planned))
    return 0


def render_plan(planned: Sequence[Planned]) -> str:
    """One line a step: verdict, name, why, and the estimate where an earlier run gives one."""
    width = max((len(item.step.label) for item in planned), default=0)
    lines = []
    for item in planned:
        if item.verdict is None:
            lines.append(f"{'wait':8} {item.step.label:{width}}  after {', '.join(item.waits_for)}")
            continue
        lines.append(f"{item.verdict.state:8} {item.step.label:{width}}  {render_verdict(item.verdict)}".rstrip())
    states = [item.verdict.state if item.verdict else "wait" for item in planned]
    lines.append(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return "\n".join(lines)


def _planned_json(item: Planned) -> dict[str, Any]:
    verdict = item.verdict
    return {
        "step": item.step.label,
        "state": verdict.state if verdict else "wait",
        "waits_for": list(item.waits_for),
        "reasons": list(verdict.reasons) if verdict else [],
        "warnings": list(verdict.warnings) if verdict else [],
    }


def _finished(reference: str, store: str) -> str:
    """The URL of a finished artifact named by URL or by FLOW/PRESET[:OUTPUT]."""
    resolver = Resolver(FLOWS, {})
    step = resolver.step(reference)
    if isinstance(step, str):
        return step
    last = plan({"main": step}, store)[-1]
    if last.verdict is None or last.verdict.artifact is None:
        flow = reference.partition(":")[0].replace("/", " ")
        raise ConfigError(
            f"{reference} is not finished in {store}, and this command only reads. Make it first: nestling {flow}"
        )
    return last.verdict.artifact.url


def _lineage(args: argparse.Namespace) -> int:
    print(render_lineage(lineage(_finished(args.artifact, args.store))))
    return 0


def _gc(args: argparse.Namespace) -> int:
    roots: list[str] = []
    resolver = Resolver(FLOWS, {})
    for reference in args.keep or [f"factory/{preset}" for preset in FLOWS["factory"].presets]:
        flow, _, preset = reference.partition("/")
        for item in plan(resolver.outputs(flow, preset), args.store):
            if item.verdict is not None and item.verdict.artifact is not None:
                roots.append(item.verdict.artifact.url)
    found = gc(args.store, roots, older_than_s=args.older_than_days * 86_400, dry_run=not args.delete)
    print(render_gc(found))
    return 0


def _browse(args: argparse.Namespace) -> int:
    from tasks.browse.server import serve

    serve(open_artifact(_finished(args.artifact, args.store)), args.host, args.port)
    return 0


def _chat(args: argparse.Namespace) -> int:
    from tasks.release.chat import chat  # brings JAX, which the other commands do not need

    return chat(open_artifact(_finished(args.artifact, args.store)))


def _validation_text(error: ValidationError) -> str:
    lines = [f"error: {error.error_count()} wrong value(s) for {error.title}:"]
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        is_group = isinstance(item.get("input"), Mapping)  # a rule across fields names them itself
        seen = f"{where}: " if where and is_group else f"{where} = {item.get('input')!r}: " if where else ""
        lines.append(f"  {seen}{item['msg'].removeprefix('Value error, ')}")
    lines.append(
        "Nothing was read or written. Correct the --set values (or the row of flows/presets.py) and run again."
    )
    return "\n".join(lines)


def _terminate(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _keep_traceback() -> Path:
    folder = Path.cwd() / ".nestling" / "errors"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    path.write_text(traceback.format_exc())
    return path


if __name__ == "__main__":
    sys.exit(main())
