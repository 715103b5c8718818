"""Text that others wrote: decoded whatever its encoding, parsed without harm, errors that name the file.

Annotations come from the internet: a file is opened only where it is a plain file of bounded size.
"""

import codecs
import gc
import json
import re
import stat
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from defusedxml.ElementTree import fromstring

from detloss.lab.records import first_line

MIB = 2**20
MOST_TEXT, MOST_YAML, MOST_JSON = 64 * MIB, MIB, 4096 * MIB
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
DECLARED = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
}
"""Encodings that tools declare for text of the wider one."""
SLOW = {"punycode", "idna", "unicode_escape", "raw_unicode_escape"}
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, and the parts of a file name that are no text."""


def read_bytes(file: Path, most: int = MOST_TEXT) -> bytes:
    """The content of a plain file; ValueError where it is another thing, larger than `most`, or not there."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{file}: is not a plain file, so it is not opened")
        if status.st_size > most:
            size = f"{status.st_size / MIB:,.0f} MiB"
            raise ValueError(f"{file}: has {size}, and such a file may have {most // MIB:,}; split it")
        return file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from None


def read_start(file: Path, count: int) -> bytes:
    """The first bytes of a plain file, without the zeros that UTF-16 has in between; b"" where it is none."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return b""
        with file.open("rb") as opened:
            return opened.read(count).replace(b"\0", b"")
    except OSError:
        return b""


def read_text(file: Path, most: int = MOST_TEXT, declared: str | None = None) -> str:
    """The text of a file: UTF-8, UTF-16 or UTF-32, with or without a byte order mark, or as it declares."""
    data = read_bytes(file, most)
    mark = next((mark for mark in BOMS if data.startswith(mark)), b"")
    data = data[len(mark) :]
    encoding = BOMS.get(mark) or declared or _guess(data[:200])
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        what = f"not a text file in {encoding.upper()} ({first_line(error)})"
        raise ValueError(f"{file}: {what}; save it as UTF-8") from None


def _guess(start: bytes) -> str:
    """UTF-16 has a zero in every second byte of plain English, UTF-8 has none."""
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[0::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) / 2:
            return encoding
    return "utf-8"


def read_lines(file: Path) -> list[str]:
    """The lines that hold something, without the space around them."""
    return [line for line in map(str.strip, read_text(file).splitlines()) if line]


def read_json(file: Path, seen: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file; `seen` is given each object and returns what stands for it."""
    text = read_text(file, MOST_JSON)
    collects = gc.isenabled()
    gc.disable()  # of millions of new objects, none of which is garbage, it would look at all again and again
    try:
        return json.loads(text, object_hook=seen)
    except (ValueError, RecursionError) as error:  # also thousands of digits, or of brackets
        raise ValueError(f"{file}: not valid JSON ({first_line(error)})") from None
    finally:
        if collects:
            gc.enable()


def read_xml(file: Path) -> ET.Element:
    """The root of an XML file; entities and what is outside are refused."""
    found = DECLARED.search(read_bytes(file)[:300])
    declared = None
    if found:
        try:
            declared = codecs.lookup(found[1].decode()).name
        except LookupError:
            raise ValueError(
                f"{file}: its encoding {found[1].decode()!r} is unknown; save as UTF-8"
            ) from None
        if declared in SLOW:
            raise ValueError(f"{file}: its encoding {declared!r} is not for XML; save it as UTF-8")
    text = read_text(file, declared=WIDER.get(declared, declared) if declared else None)
    try:
        return fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not valid XML ({first_line(error)})") from None


def read_yaml(file: Path) -> dict[str, Any]:
    """The top level of a YAML file; every scalar is a text, so that a class may be called no or 007."""
    text = read_text(file, MOST_YAML)
    if bad := UNPRINTABLE.search(re.sub("[\t\n\r\x85\u2028\u2029]", "", text)):
        raise ValueError(f"{file}: has the control character {bad[0]!r}; remove it")
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        found = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark else ""
        what = getattr(error, "problem", None) or first_line(error)
        raise ValueError(f"{file}:{where} not valid YAML ({what})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: must hold 'key: value' lines, such as 'train: images/train'")
    keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
    if double := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{file}: {double[0]!r} is there more than once; keep one of them")
    return found


def printable(text: str) -> bool:
    """Whether a name has no control characters and is text at all."""
    return UNPRINTABLE.search(text) is None
