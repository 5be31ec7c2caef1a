"""`memstore export --where`: what is kept about a person, for them to read."""

import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import anthropic
import pytest

from tests.commands.conftest import Commands

HOSTILE = "<script>alert(1)</script>"


class Links(HTMLParser):
    """What a browser would see of an index."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [unquote(value or "") for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def anna(client: anthropic.Anthropic) -> list[str]:
    """Two stores of one person, of the same name, and one of somebody else."""
    stores = client.beta.memory_stores
    made = [stores.create(name="Anna's <notes>", metadata={"user": "anna", "n": str(n)}).id for n in range(2)]
    memory = stores.memories.create(made[0], path="/tea & <b>cake</b>.md", content="first")
    stores.memories.update(memory.id, memory_store_id=made[0], content="second")
    gone = stores.memories.create(made[1], path="/gone.md", content=HOSTILE)
    stores.memories.delete(gone.id, memory_store_id=made[1])
    other = stores.create(name="Bert", metadata={"user": "bert"})
    stores.memories.create(other.id, path="/bert.md", content="not hers")
    return made


def test_a_person_gets_every_text_and_who_wrote_it_and_when(commands: Commands, anna: list[str]) -> None:
    done = commands.json("export --where user=anna --output anna.zip")
    assert (sorted(done["stores"]), done["memories"], done["versions"]) == (sorted(anna), 1, 4)
    assert (commands.directory / "anna.zip").stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(commands.directory / "anna.zip") as archive:
        seen = Links()
        seen.feed(archive.read("index.html").decode())
        texts = {archive.read(link).decode() for link in seen.links}
        assert "not hers" not in {archive.read(name).decode("utf-8", "replace") for name in archive.namelist()}
    assert texts == {"first", "second", HOSTILE}
    assert "What is kept about user = anna" in seen.text
    assert "key bootstrap (apikey_" in seen.text
    assert "/tea & <b>cake</b>.md" in seen.text
    assert not seen.tags & {"script", "b", "notes"}
    assert [entry for entry in commands.out("audit list --action store.exported").split() if entry in anna]


def test_each_part_of_a_persons_export_can_be_imported(commands: Commands, anna: list[str], tmp_path: Path) -> None:
    commands.out("export --where user=anna --where n=0 --output there")
    (part,) = [path for path in (tmp_path / "there").iterdir() if path.is_dir()]
    assert commands.json("import", str(part))["created"] == 1


def test_an_export_of_a_person_is_refused_in_one_sentence(commands: Commands, anna: list[str], tmp_path: Path) -> None:
    (tmp_path / "taken.zip").touch()
    for line, sentence in (
        ("export --where user=nobody --output x.zip", "no store has 'user=nobody' in its metadata"),
        ("export --where user=anna --output taken.zip", "is there already"),
        ("export --where user=anna --output -", "goes with --output FILE"),
        ("export --where user=anna --git x", "goes with --output FILE"),
        ("export --where anna --output x.zip", "is not of the form key=value"),
        ("export Bert --where user=anna --output x.zip", "name one of STORE and --where"),
        ("export --output x.zip", "name one of STORE and --where"),
        ("export --where user=anna --workspace nowhere --output x.zip", "nowhere"),
    ):
        assert sentence in commands.refused(line), line
    assert {path.name for path in tmp_path.iterdir()} == {"taken.zip"}
