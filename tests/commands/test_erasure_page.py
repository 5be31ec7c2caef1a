"""The report of an erasure as a page for people: all of the report, nothing raw, nothing from elsewhere."""

import json
from html.parser import HTMLParser
from typing import Any

from app.cli import erasure_page
from tests.commands.conftest import Commands

HOSTILE = "<script>alert(1)</script>|`*_\x1b[31m\u202e\n# forged"


class Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name in ("src", "href") for name, _ in attrs), "nothing is loaded from elsewhere"

    def handle_data(self, data: str) -> None:
        self.text += data


def made_by(commands: Commands) -> dict[str, Any]:
    commands.out("stores create 'to be erased' --metadata user=u_17")
    commands.out("forget --where user=u_17 --yes")
    found: dict[str, Any] = json.loads(commands.out("forget report"))
    return found


def test_a_page_says_all_that_the_report_says(commands: Commands) -> None:
    report = made_by(commands)
    html = commands.out("forget report --format html", report["erasure_id"])
    markdown = commands.out("forget report --format md")
    seen = Tags()
    seen.feed(html)
    values = [report["erasure_id"], report["deployment_id"], report["started_at"], report["finished_at"]]
    values += [report["public_key"], *(place["place"] for place in report["places"])]
    values += [*report["out_of_reach"], str(report["audit"]["seq"]), next(reversed(report["actor"].values()))]
    for value in values:
        assert value in seen.text
        assert value in markdown.replace("\\", "")
    assert "memstore forget verify" in seen.text
    assert "must be one of json, md, html" in commands.refused("forget report --format pdf")


def test_an_erasure_has_the_reference_it_was_given_until_that_is_to_be_forgotten(commands: Commands) -> None:
    commands.out("stores create 'to be erased' --metadata user=u_18")
    commands.refused("forget --where user=u_18 --yes --reference", "x" * 201)
    commands.refused("forget --where user=u_18 --yes --reference", "two\nlines")
    commands.refused("forget --resume --reference DSR-18")
    refused = commands.refused("forget --contains 'to be ERASED' --yes --reference 'to be  erased, of Anna'")
    assert "take a number instead" in refused
    assert commands.out("forget --where user=u_18 --yes --reference", "DSR-18 <b>Änna|").startswith("DSR-18 <b>Änna|: ")
    report = json.loads(commands.out("forget report"))
    assert report["reference"] == "DSR-18 <b>Änna|"
    seen = Tags()
    seen.feed(commands.out("forget report --format html"))
    assert "DSR-18 <b>Änna|" in seen.text
    erasure_id = report["erasure_id"]
    (commands.directory / "kept.json").write_text(json.dumps(report))
    commands.out("forget verify kept.json")

    assert erasure_id in commands.out("forget --contains änna")
    assert "texts of 1 other record" in commands.out("forget --contains änna --yes")
    assert "reference" not in json.loads(commands.out("forget report", erasure_id))
    commands.out("forget verify --contains änna kept.json")


def test_what_somebody_else_wrote_is_text_in_a_page(commands: Commands) -> None:
    report = {**made_by(commands), "reference": HOSTILE, "out_of_reach": [HOSTILE], "same_text": [HOSTILE]}
    report["places"] = [{"place": HOSTILE, "complete": False, "not_reached": [HOSTILE]}]
    seen = Tags()
    seen.feed(erasure_page.html(report))
    assert "script" not in seen.tags
    markdown = erasure_page.markdown(report)
    assert "<script>" not in markdown.replace("\\<", "")
    assert not any(line.startswith("# forged") for line in markdown.splitlines())
    for page in (markdown, erasure_page.html(report)):
        assert not any(character in page for character in "\x1b\u202e")
