"""The report of an erasure as a page that people read and file: beside the signed JSON, which alone proves it."""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from app.cli.terminal import field

FORMATS = ("json", "md", "html")
_COUNTED = {
    "stores": "Memory stores, whole",
    "memories": "Memories",
    "versions": "Versions of memories",
    "stores_touched": "Memory stores that lost memories",
}
_CHECK = "memstore forget verify REPORT.json"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")
_STYLE = """
body { font: 16px/1.5 Georgia, serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { border: 1px solid #bbb; padding: .3rem .6rem; }
th { text-align: left; background: #f3f3f3; } code { overflow-wrap: anywhere; }
"""

Table = Sequence[tuple[str, str]]


def markdown(report: Mapping[str, Any]) -> str:
    """The page in Markdown."""

    def text(value: str) -> str:
        return _MARKDOWN.sub(r"\\\1", field(value))

    def code(value: str) -> str:
        return "`" + field(value).replace("`", "'") + "`"

    def table(heads: tuple[str, str], rows: Table) -> str:
        lines = [heads, ("---", "---"), *rows]
        return "\n".join(f"| {left} | {right} |" for left, right in lines)

    parts = []
    for kind, value in _parts(report, text, code):
        if kind == "title":
            parts.append(f"# {value}")
        elif kind == "head":
            parts.append(f"## {value}")
        elif kind == "table":
            parts.append(table(*value))
        elif kind == "list":
            parts.append("\n".join(f"- {item}" for item in value))
        else:
            parts.append(value)
    return "\n\n".join(parts) + "\n"


def html(report: Mapping[str, Any]) -> str:
    """The page in HTML, whole in itself: nothing is loaded from elsewhere."""

    def text(value: str) -> str:
        return escape(field(value))

    def code(value: str) -> str:
        return f"<code>{text(value)}</code>"

    def table(heads: tuple[str, str], rows: Table) -> str:
        head = "<tr>" + "".join(f"<th>{each}</th>" for each in heads) + "</tr>"
        return (
            "<table>" + head + "".join(f"<tr><td>{left}</td><td>{right}</td></tr>" for left, right in rows) + "</table>"
        )

    title, parts = "", []
    for kind, value in _parts(report, text, code):
        if kind == "title":
            title = value
            parts.append(f"<h1>{value}</h1>")
        elif kind == "head":
            parts.append(f"<h2>{value}</h2>")
        elif kind == "table":
            parts.append(table(*value))
        elif kind == "list":
            parts.append("<ul>" + "".join(f"<li>{item}</li>" for item in value) + "</ul>")
        else:
            parts.append(f"<p>{value}</p>")
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
    return f'<!doctype html>\n<html lang="en">{head}' + "\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _parts(report: Mapping[str, Any], text: Callable[[str], str], code: Callable[[str], str]) -> list[tuple[str, Any]]:
    """What the page says, in order: kinds and values that are safe in the page's language."""
    counts, erasure_id = report["counts"], report["erasure_id"]
    parts: list[tuple[str, Any]] = [
        ("title", f"Report of an erasure{_after(report, text)}"),
        ("text", "What is listed here was erased from this system. The report names no content, path or name of it."),
        ("table", (("", ""), _about(report, text, code))),
        ("head", "What was erased"),
        ("table", (("Kind", "Number"), [(text(_COUNTED.get(name, name)), f"{counts[name]:,}") for name in counts])),
        ("head", "Where"),
        ("table", (("Place", "State"), [_place(place, text) for place in report["places"]])),
        ("head", "What it could not reach"),
        ("text", "These may still hold what was erased, until the persons in charge of them remove it."),
        ("list", [text(each) for each in report["out_of_reach"]]),
    ]
    if report.get("same_text"):
        parts += [
            ("head", "What counts as the same text"),
            ("list", [text(each) for each in report["same_text"]]),
        ]
    if readers := report.get("feed_readers"):
        named = [(text(name.replace("_", " ")), f"{number:,}") for name, number in readers["not_passed"].items()]
        parts += [
            ("head", "Readers that may still hold a copy"),
            ("text", "Of the readers of the last 30 days, these had not heard of the erasure when this page was made."),
            ("table", (("Readers", "Number"), named)),
        ]
    return [
        *parts,
        ("head", "How to check this report"),
        (
            "text",
            "This page is for reading. The signed JSON of the same erasure proves it: "
            f"{code(f'memstore forget report {erasure_id} > REPORT.json')} prints it, and {code(_CHECK)} checks "
            "its signature and searches the system again.",
        ),
        (
            "table",
            (
                ("", ""),
                [
                    ("Public key of the deployment", code(report["public_key"])),
                    ("Signature", code(report["signature"])),
                    ("Entry of the audit log", code(f"{report['audit']['seq']}:{report['audit']['sha256']}")),
                ],
            ),
        ),
    ]


def _after(report: Mapping[str, Any], text: Callable[[str], str]) -> str:
    reference = report.get("reference")
    return f": {text(reference)}" if reference else ""


def _about(report: Mapping[str, Any], text: Callable[[str], str], code: Callable[[str], str]) -> Table:
    actor = report.get("actor") or {}
    who = next((value for name, value in actor.items() if name != "type"), "-")
    rows = [("Reference", text(report["reference"]))] if report.get("reference") else []
    return [
        *rows,
        ("Erasure", code(report["erasure_id"])),
        ("Deployment", code(report["deployment_id"])),
        ("Workspace", code(report["workspace_id"]) if report["workspace_id"] else "every workspace"),
        ("Run by", text(who)),
        ("Begun", text(report["started_at"])),
        ("Finished", text(report["finished_at"])),
    ]


def _place(place: Mapping[str, Any], text: Callable[[str], str]) -> tuple[str, str]:
    state = "done" if place["complete"] else "; ".join(["not everything was reached", *map(text, place["not_reached"])])
    return text(place["place"]), state
