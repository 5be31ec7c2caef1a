"""A text planted through the mount of a host, and the places of that host where its bytes could be found."""

import contextlib
import os
from pathlib import Path

import anthropic

from tests.erasure.planting import files_with
from tests.mount.hosts import Host, Sessions, wait_for
from tests.support.servers import Server

FUSE, MIRROR = "fuse", "mirror"
SHARED = "/shared.md"


class Planted:
    """A store whose name is the text's, attached to a session that is mounted on a host."""

    def __init__(self, server: Server, sdk: anthropic.Anthropic, host: Host, marker: str, mode: str) -> None:
        self._server, self._sdk, self._mode = server, sdk, mode
        self.host, self.marker = host, marker
        made = sdk.beta.memory_stores.create(name=f"Notes on {marker}", metadata={"user": "u_123", "who": marker})
        self.store_id = made.id
        self._shared = sdk.beta.memory_stores.memories.create(
            made.id, path=SHARED, content=f"first line\nof {marker}\nlast line\n"
        )
        self.session = Sessions(sdk).open(made.id)
        self.mount()

    def mount(self, *options: str) -> None:
        """Show it on the host."""
        self.host.memstore("mount", "--session", self.session, "--root", self.host.root, "--mode", self._mode, *options)
        (shown,) = self.host.status()["stores"]
        self.directory = Path(shown["path"])

    def plant(self) -> None:
        """Write the text as programs do: through the journal too, and so that the cache is on the disk."""
        marker, directory = self.marker, self.directory
        with (directory / "plain.md").open("w") as file:
            file.write(f"likes tea, says {marker}\n")
        with (directory / "plain.md").open("a") as file:
            file.write(f"and coffee, says {marker}\n")
        (directory / marker).mkdir()
        (directory / marker / "file.md").write_text(f"in a directory: {marker}\n")
        (directory / marker / "file.md").rename(directory / f"{marker}.md")
        (directory / f"{marker}-gone.md").write_text(f"to be deleted: {marker}\n")
        self.flush()
        (directory / f"{marker}-gone.md").unlink()
        self._save_as_an_editor_does()
        self._conflict()
        if self._mode == FUSE:  # a mirror leaves what can't be saved where it is: in the person's own file
            self._refused()
            (directory / f".{marker}.swp").write_bytes(b"b0VIM " + marker.encode())
        self._while_the_server_is_away()

    def flush(self) -> None:
        """Wait until the server has everything."""
        self.host.memstore("flush")

    def _save_as_an_editor_does(self) -> None:
        temporary = self.directory / "tmpq3k_9xa1"
        temporary.write_text(f"likes milk, says {self.marker}\n")
        os.replace(temporary, self.directory / "plain.md")
        backup = self.directory / f"{self.marker}.md~"
        os.rename(self.directory / f"{self.marker}.md", backup)
        (self.directory / f"{self.marker}.md").write_text(f"written anew: {self.marker}\n")
        backup.unlink()

    def _conflict(self) -> None:
        with (self.directory / "shared.md").open("r+") as file:
            file.read()
            self._sdk.beta.memory_stores.memories.update(
                self._shared.id, memory_store_id=self.store_id, content=f"theirs about {self.marker}\n"
            )
            file.seek(0)
            file.truncate()
            file.write(f"ours about {self.marker}\n")
            with contextlib.suppress(OSError):  # ESTALE: both texts are kept
                file.flush()
                os.fsync(file.fileno())
        wait_for("the conflict copy", lambda: any(".conflict-" in name for name in os.listdir(self.directory)))

    def _refused(self) -> None:
        for name, content in ((f"{self.marker}-bytes.md", b"\xff"), (f"{self.marker}-long.md", b"x" * 200_000)):
            try:
                (self.directory / name).write_bytes(self.marker.encode() + content)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    (self.directory / name).unlink()
            else:
                raise AssertionError(f"{name} was not refused")

    def _while_the_server_is_away(self) -> None:
        """What is written goes to the journal, and the cache to the disk, for a successor of the daemon."""
        self._server.stop()
        (self.directory / "offline.md").write_text(f"offline: {self.marker}\n")
        wait_for("the journal to have it", lambda: bool(self.host.store(self.directory.name)["pending"]))
        assert files_with(self.host.places.state, self.marker)
        self._server.start()
        self.flush()
        wait_for("the feed", lambda: self.host.store(self.directory.name)["feed"] == "live")

    def on_disk(self) -> list[str]:
        """The files of the host that hold the text: what the daemon keeps and, in a mirror, what anybody sees."""
        places = {"run": self.host.places.run, "state": self.host.places.state, "cache": self.host.places.cache}
        if self._mode == MIRROR:
            places |= {"mirror": self.directory, "beside": self.directory.with_name(f".{self.directory.name}.mirror")}
        return [f"{name}: {found}" for name, place in places.items() for found in files_with(place, self.marker)]

    def anywhere(self) -> list[str]:
        """The files and directories of the host that have the text in name or bytes, when nothing is mounted."""
        return files_with(self.host.directory, self.marker)

    def wait_until_clean(self) -> None:
        """Wait until the daemon has heard of it and nothing is left."""
        try:
            wait_for("nothing to be left", lambda: self.on_disk() == [])
        except AssertionError as error:
            raise AssertionError(f"left: {self.on_disk()}") from error
