"""Names in archives: bytes whose encoding nobody wrote down.

Bytes that are valid UTF-8 are UTF-8, whatever the archive says of them: legacy code pages are that by accident hardly
ever, and macOS and Info-ZIP write UTF-8 without saying so. For others somebody must say what they are; a guess would
bring names that nobody finds again.
"""

import codecs
import re

from app.contract.errors import InvalidRequest

_SHAPE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_ENCODINGS = frozenset(
    {
        *("cp437", "cp720", "cp737", "cp775", "cp850", "cp852", "cp855", "cp857", "cp858", "cp860", "cp861", "cp862"),
        *("cp863", "cp864", "cp865", "cp866", "cp869", "cp874", "cp1125", "cp932", "cp949", "cp950"),
        *(f"cp{number}" for number in range(1250, 1259)),
        *(f"iso8859-{number}" for number in range(1, 17)),
        *("koi8-r", "koi8-t", "koi8-u", "kz1048", "ptcp154", "tis-620", "hp-roman8"),
        *("mac-roman", "mac-greek", "mac-cyrillic", "mac-latin2", "mac-iceland", "mac-turkish", "mac-croatian"),
        *("shift_jis", "euc_jp", "euc_kr", "johab", "gb2312", "gbk", "gb18030", "big5", "big5hkscs", "utf-8"),
    }
)

UNKNOWN = (
    "has a name that is not UTF-8; say what its bytes are with --name-encoding (over HTTP the field 'name_encoding'), "
    "such as cp437, cp932 or gbk"
)
"""Why a file is refused whose name can't be read."""


def check_encoding(name: str) -> str:
    """The name of an encoding that file names may have.

    Raises:
        InvalidRequest: it is none.

    """
    try:
        found = codecs.lookup(name).name if _SHAPE.fullmatch(name) else ""
    except LookupError:
        found = ""
    if found not in _ENCODINGS:
        raise InvalidRequest(
            f"name_encoding: {name[:40]!r} is no encoding of file names; such as cp437, cp850, cp932, cp949, gbk, "
            "gb18030, big5, windows-1252 or iso8859-1 would be"
        )
    return found


def decoded(raw: bytes, encoding: str | None) -> str:
    """A name as text; bytes that can't be read are lone surrogates."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    if encoding is not None:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("utf-8", "surrogateescape")
