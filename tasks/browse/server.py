"""The pages of `nestling browse`: rendered here, on this machine, and shown to nobody else.

Crawled text is hostile: every word is escaped and its invisible characters are written out, the policy lets no script
run but our own file, nothing is loaded from elsewhere, and the server answers only to names of this machine (a page of
the web must not read the corpus through a name that it lets point here).
"""

import contextlib
import json
import math
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import uvicorn
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tasks.artifact import Artifact
from tasks.browse.rejects import ROWS, reasons, reject_lines, rejects
from tasks.browse.search import Query, search
from tasks.browse.shelf import Place, Shelf
from tasks.browse.whatif import Changed, Sidecar
from tasks.errors import ConfigError, DataFault
from tasks.ingest.filters.rule import Limit
from tasks.page import content_security_policy, environment, style
from tasks.page.charts import element

TEMPLATES = Path(__file__).parent / "templates"
PAGE_CHARS = 200_000  # of a document, shown
SAMPLE_CHARS = 1500  # of a document in a list
DRAWN = 10  # rows of a draw: each reads a row group of its own
BINS = 60
LOCAL = ("localhost", "127.0.0.1")


def app(artifact: Artifact, hosts: tuple[str, ...] = LOCAL) -> Starlette:
    """The pages over one artifact, answering to these names of the machine."""
    pages = _Pages(artifact)
    routes = [
        Route("/", pages.page("overview.html.jinja", pages.overview)),
        Route("/documents", pages.page("documents.html.jinja", pages.documents)),
        Route("/document", pages.page("document.html.jinja", pages.document)),
        Route("/rejects", pages.page("rejects.html.jinja", pages.rejects)),
        Route("/thresholds", pages.page("thresholds.html.jinja", pages.thresholds)),
        Route("/thresholds/result", pages.page("whatif.html.jinja", pages.result, "problem.html.jinja")),
        Route("/browse.js", pages.script),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


def serve(artifact: Artifact, host: str, port: int) -> None:
    """Say where the page is and serve it until Ctrl-C or SIGTERM; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host} port {port} cannot be had ({error.strerror}): a page needs an address of its own. Stop the "
                "other program, or give another --port (0 takes a free one)."
            ) from error
        print(f"{artifact.url}\nhttp://{host}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        # Whoever asks for all addresses of a machine asks for all of its names.
        pages = app(artifact, ("*",) if host in ("0.0.0.0", "") else (*LOCAL, host))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has closed
            uvicorn.Server(uvicorn.Config(pages, log_level="warning", access_log=False)).run([listener])


class _Pages:
    def __init__(self, artifact: Artifact):
        self.artifact, self.shelf = artifact, Shelf(artifact)
        self.sidecar = Sidecar(self.shelf)
        sheet = style() + Markup((TEMPLATES / "browse.css").read_text(encoding="utf-8"))
        self._templates = environment(TEMPLATES, query=urlencode, short=_short)
        self._templates.globals |= {"style": sheet, "artifact": artifact, "shelf": self.shelf, "sidecar": self.sidecar}
        policy = content_security_policy(sheet).replace("form-action 'none'", "form-action 'self'")
        self._headers = {
            "Content-Security-Policy": f"{policy}; script-src 'self'; connect-src 'self'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    def page(
        self, template: str, facts: Callable[[Mapping[str, str]], dict[str, Any]], failed: str = "error.html.jinja"
    ) -> Any:
        """The handler of a page; what a user can correct is answered with 400 and the words of the error."""

        def handle(request: Request) -> Response:  # no coroutine: Starlette runs it in a thread
            try:
                name, status, found = template, 200, facts(request.query_params)
            except (ConfigError, DataFault) as error:
                name, status, found = failed, 400, {"error": str(error)}
            return HTMLResponse(self._templates.get_template(name).render(**found), status, self._headers)

        return handle

    def script(self, request: Request) -> Response:
        text = (TEMPLATES / "browse.js").read_text(encoding="utf-8")
        return Response(text, media_type="text/javascript", headers=self._headers)

    def overview(self, asked: Mapping[str, str]) -> dict[str, Any]:
        folders = {
            folder: (len(paths), sum(self.shelf.rows_of(path) for path in paths))
            for folder, paths in self.shelf.folders.items()
        }
        return {"folders": folders, "reasons": reasons(self.artifact)}

    def documents(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Hits of a search, rows drawn from all of them, or rows as they stand from a place on."""
        blank = {"asked": asked, "found": None, "rows": [], "next": None, "seed": 0}
        start = Place.parse(asked["from"]) if asked.get("from") else None
        if words := asked.get("q", ""):
            query = Query(words, "regex" in asked, "case" in asked, asked.get("column") or self.shelf.body)
            found = search(self.shelf, query, start)
            return blank | {"found": found, "next": found.next}
        if (seed := asked.get("draw", "")).isdecimal() and len(seed) < 10:
            drawn = [(place, self.shelf.rows(place, 1)[0]) for place in self.shelf.draw(int(seed), DRAWN)]
            return blank | {"rows": [(place, self._shown(row)) for place, row in drawn], "seed": int(seed)}
        if start is None and not self.shelf.shards:
            return blank
        start = start or Place(self.shelf.shards[0], 0)
        rows = [self._shown(row) for row in self.shelf.rows(start, ROWS)]
        placed = [(Place(start.path, start.row + i), row) for i, row in enumerate(rows)]
        return blank | {"rows": placed, "next": self.shelf.after(start.path, start.row + len(rows))}

    def document(self, asked: Mapping[str, str]) -> dict[str, Any]:
        place = Place.parse(asked.get("at", ""))
        rows = self.shelf.rows(place, 1)
        if not rows:
            raise ConfigError(
                f"{place} is beyond the end: the shard has {self.shelf.rows_of(place.path):,} rows, counted from 0. "
                "Start from the list of documents."
            )
        row = rows[0]
        measured = self.sidecar.annotation_of(place.path, str(row.get("id")))
        limits = {name: [limit for limit in self.sidecar.limits if limit.column == name] for name in measured}
        length = len(row.get(self.shelf.body) or "")
        return {
            "place": place,
            "row": self._shown(row, PAGE_CHARS),
            "length": length,
            "measured": measured,
            "limits": limits,
        }

    def rejects(self, asked: Mapping[str, str]) -> dict[str, Any]:
        file, _, line = asked.get("from", "0:0").partition(":")
        if not (file.isdecimal() and line.isdecimal()):
            raise ConfigError(f"place {file[:40]!r}: rejects are found by file and line. Start from the first page.")
        found = rejects(self.artifact, asked.get("reason", ""), asked.get("q", ""), (int(file), int(line)))
        shown = [self._shown(row, PAGE_CHARS) for row in found.rows]
        return {"asked": asked, "reasons": reasons(self.artifact), "found": found, "rows": shown}

    def thresholds(self, asked: Mapping[str, str]) -> dict[str, Any]:
        values = self._values(asked)
        sliders = [
            {"limit": limit, "name": f"t{i}", "value": value, **_scale(limit, self.sidecar.sample[limit.column], value)}
            for i, (limit, value) in enumerate(zip(self.sidecar.limits, values, strict=True))
        ]
        return {"sliders": sliders} | (self.result(asked) if sliders else {"result": None})

    def result(self, asked: Mapping[str, str]) -> dict[str, Any]:
        found = self.sidecar.what_if(self._values(asked))
        return {
            "result": found,
            "gained": [self._changed(changed, kept=False) for changed in found.gained],
            "lost": [self._changed(changed, kept=True) for changed in found.lost],
        }

    def _values(self, asked: Mapping[str, str]) -> list[float]:
        """The thresholds that were asked for; those of the artifact where nothing was."""
        found: list[float] = []
        for i, limit in enumerate(self.sidecar.limits):
            text = asked.get(f"t{i}", "")
            try:
                value = float(text) if text else float(limit.threshold)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ConfigError(
                    f"threshold {text[:40]!r} of {limit.reason} is no number: a limit is compared with one. Write one."
                )
            found.append(value)
        return found

    def _changed(self, changed: Changed, *, kept: bool) -> dict[str, Any]:
        """A page of the sidecar with its text: from the documents if it was kept, else from the rejects."""
        row = self.shelf.rows(changed.place, 1)[0]
        documents, files = self.sidecar.text_place(changed.place.path)
        text = self._document_of(documents, row["id"]) if kept else self._reject_of(files, row["id"])
        numbers = {limit.column: row[limit.column] for limit in self.sidecar.limits if limit.reason == changed.reason}
        return {"row": row, "reason": changed.reason, "numbers": numbers, "text": text}

    def _document_of(self, path: str, key: str) -> str:
        for first, batch in self.shelf.batches(path, ["id"]) if path else ():
            keys = batch["id"].to_pylist()
            if key in keys:
                row = self.shelf.rows(Place(path, first + keys.index(key)), 1, [self.shelf.body])[0]
                return _short(row[self.shelf.body])
        return ""

    def _reject_of(self, files: tuple[str, ...], key: str) -> str:
        for path in files:
            for line in reject_lines(self.artifact, path):
                if key in line and (row := json.loads(line)).get("id") == key:
                    return _short(str(row.get("text", "")))
        return ""

    def _shown(self, row: Mapping[str, Any], chars: int = SAMPLE_CHARS) -> dict[str, Any]:
        """A row with its turns apart, if it has any, and its long values cut."""
        turns = _turns(row["messages"], chars) if "messages" in row else None
        return {
            "turns": turns,
            "text": None if turns is not None else _short(str(row.get("text") or ""), chars),
            "facts": {k: v for k, v in row.items() if k not in ("text", "messages") and v not in ("", "{}", None)},
        }


def _turns(messages: Any, chars: int) -> list[tuple[str, str]] | None:
    """(role, content) of a conversation, None where it is none: a reject may be anything."""
    try:
        turns = json.loads(messages) if isinstance(messages, str) else messages
        return [(str(turn["role"]), _short(str(turn["content"]), chars)) for turn in turns]
    except (ValueError, KeyError, TypeError):
        return [("", _short(str(messages), chars))]


def _short(text: str, chars: int = SAMPLE_CHARS) -> str:
    return text if len(text) <= chars else f"{text[:chars]}\n… {len(text) - chars:,} more characters"


def _scale(limit: Limit, values: np.ndarray, value: float) -> dict[str, Any]:
    """Ends, step and histogram of a slider: most of the sample, and both thresholds inside."""
    known = values[np.isfinite(values)]
    inside = np.quantile(known, [0.005, 0.98]) if len(known) else np.array([0.0, 1.0])
    low, high = float(min(inside[0], limit.threshold, value)), float(max(inside[1], limit.threshold, value))
    whole = bool(np.all(known == np.round(known))) and float(limit.threshold).is_integer() and high > 1
    air = (high - low) * 0.02 or 0.5
    low, high = (math.floor(low - air), math.ceil(high + air)) if whole else (low - air, high + air)
    step = max(1, round((high - low) / 500)) if whole else 10.0 ** math.floor(math.log10((high - low) / 200))
    low = math.floor(low / step) * step if not whole else low
    return {
        "low": f"{low:.10g}",
        "high": f"{high:.10g}",
        "step": f"{step:.10g}",
        "bars": _histogram(limit, known, low, high),
    }


def _histogram(limit: Limit, values: np.ndarray, low: float, high: float) -> Markup:
    """Bars over the slider: of those the artifact's own threshold keeps, and of those it drops."""
    counts, edges = np.histogram(np.clip(values, low, high), BINS, (low, high))
    tallest = max(1, int(counts.max()))
    middles = (edges[:-1] + edges[1:]) / 2
    bars = [
        element("rect", x=i, width=0.9, y=40 - height, height=height, class_=f"mark {'lost' if dropped else 'kept'}")
        for i, (height, dropped) in enumerate(
            zip((40 * np.sqrt(counts / tallest)).tolist(), limit.broken(middles).tolist(), strict=True)
        )
        if height
    ]
    return element(
        "svg", *bars, class_="hist", viewBox=f"0 0 {BINS} 40", preserveAspectRatio="none", aria_hidden="true"
    )
