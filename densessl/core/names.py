"""Names of files as they are written: in messages, in lists, in logs.

A name on Linux is bytes, not always UTF-8, and may hold a line feed. Python keeps bytes that are no
UTF-8 as surrogates (``os.fsdecode``); written with the error handler :data:`ERRORS` they are the
same bytes again.
"""

import codecs
import re
import unicodedata

ERRORS = "densessl_names"  # for open() and str.encode(): never fails
LIST = "surrogateescape"  # for reading a file that was written with ERRORS
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}
ESCAPED = re.compile(r'\\(?:([nrt\\"])|x([0-9a-f]{2})|u([0-9a-f]{4}))')


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Surrogates that stand for bytes become these bytes; any other one is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    out = b""
    for letter in error.object[error.start : error.end]:
        code = ord(letter)
        out += bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else b"\\u%04x" % code
    return out, error.end


codecs.register_error(ERRORS, _keep_bytes)


def one_line(name: object) -> str:
    """A name for a message: control characters and line separators are escaped, as ``\\n``.

    Bytes that are no UTF-8 stay surrogates, for the file or the terminal to write as it can.
    """
    text = str(name)
    if text.isprintable():  # as nearly all are
        return text
    return "".join(_escape(c) if _breaks(c) else c for c in text)


def visible(text: object) -> str:
    """A message of several lines, in which whatever steers a terminal is escaped."""
    return "\n".join(one_line(line) for line in str(text).split("\n"))


def brief(name: object, most: int = 120) -> str:
    """A name for a message, its middle left out where it is longer than ``most`` letters."""
    text = one_line(name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"


def readable(name: object) -> str:
    """The same for what must be UTF-8, as a web page: other bytes are escaped, too."""
    return one_line(name).encode("utf-8", "backslashreplace").decode()


def to_line(name: str) -> str:
    """A name as a line of a list (without the line feed), from which :func:`from_line` has it back.

    As it is wherever that is possible; else between double quotes, with escapes as in C.
    """
    plain = name == name.strip() and not name.startswith(('"', "#"))
    if plain and name and not any(map(_breaks, name)):
        return name
    escaped = (_escape(c) if _breaks(c) or c in ESCAPES else c for c in name)
    return f'"{"".join(escaped)}"'


def from_line(line: str) -> str:
    """The name that :func:`to_line` wrote as ``line``."""
    if len(line) < 2 or not (line.startswith('"') and line.endswith('"')):
        return line
    back = {escape[1]: letter for letter, escape in ESCAPES.items()}

    def letter(found: re.Match) -> str:
        return back[found[1]] if found[1] else chr(int(found[2] or found[3], 16))

    return ESCAPED.sub(letter, line[1:-1])


def _breaks(letter: str) -> bool:
    """Whether it could end a line or steer a terminal."""
    return unicodedata.category(letter) in ("Cc", "Zl", "Zp")


def _escape(letter: str) -> str:
    if letter in ESCAPES:
        return ESCAPES[letter]
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"
