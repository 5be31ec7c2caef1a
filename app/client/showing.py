"""What a server says, as it may be shown to a person: no I/O."""


def escaped(text: str, most: int = 500) -> str:
    r"""The text with everything that does not print as escapes (`\x1b`, `\u202e`), cut after `most` characters.

    Control and format characters, line ends, separators but the space, and lone surrogates do not print.
    """
    cut = text[:most] + ("…" if len(text) > most else "")
    if cut.isprintable():
        return cut
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in cut
    )
