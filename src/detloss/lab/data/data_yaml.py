"""The little YAML that a YOLO data set's `data.yaml` needs, so that no YAML library has to be installed.

Read are top-level `key: string`, and `names` as `[a, b]`, as lines `- a`, as `{0: a}` or as lines `0: a`,
with plain or quoted strings and comments. Everything else in the file is passed over.
"""

import json
import re
from pathlib import Path

QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*\'"""
COMMENT = re.compile(rf"({QUOTED})|(?:^|\s)#.*")
KEY = re.compile(r"([^\s:#\[\]{}'\"-][^:]*?)\s*:(?=\s|$)")
FLOW_ITEM = re.compile(rf"\s*((?:[^,'\"\[\]{{}}]*:\s*)?(?:{QUOTED}|[^,'\"\[\]{{}}]+?))\s*(?:,|$)")


def read_data_yaml(file: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Class names in the order of their numbers, and the other entries that are strings.

    Raises ValueError naming the file, and the entry that cannot be read.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file ({error})") from None
    entries: dict[str, list[str]] = {}
    block: list[str] = []
    for line in lines:
        line = COMMENT.sub(lambda m: m[1] or "", line).rstrip()
        if found := KEY.match(line):
            block = entries[found[1]] = []
            line = line[found.end() :]
        if line.strip():
            block.append(line.strip())
    if not entries.get("names"):
        raise ValueError(f"{file}: names: is missing; it lists the classes, as '[a, b]', '- a' or '0: a'")
    try:
        names = _names(entries.pop("names"))
    except ValueError as error:
        raise ValueError(f"{file}: names: {error}") from None
    return names, {
        key: _string(text[0]) for key, text in entries.items() if len(text) == 1 and text[0][0] not in "[{"
    }


def quoted(text: str) -> str:
    """A string as YAML writes it."""
    return json.dumps(text, ensure_ascii=False)


def _names(lines: list[str]) -> tuple[str, ...]:
    text = " ".join(lines)
    if text[0] in "[{":
        if text[-1] != {"[": "]", "{": "}"}[text[0]]:
            raise ValueError(f"the list that begins with {lines[0]!r} does not end")
        numbered, text = text[0] == "{", text[1:-1].strip().removesuffix(",")
        found = list(FLOW_ITEM.finditer(text))
        if "".join(m[0] for m in found) != text:
            raise ValueError(f"{text!r} is not a list of strings separated by commas")
        items = [m[1] for m in found]
    else:
        numbered = not lines[0].startswith("-")
        items = lines if numbered else [line[1:] if line.startswith("- ") else "" for line in lines]
    if not numbered:
        return tuple(_string(item) for item in items)
    pairs = [item.partition(":") for item in items]
    if [key.strip() for key, _, _ in pairs] != [str(i) for i in range(len(pairs))]:
        raise ValueError(f"must be numbered 0, 1, 2, ... in this order; found {', '.join(items)}")
    return tuple(_string(name) for _, _, name in pairs)


def _string(text: str) -> str:
    text = text.strip()
    if re.fullmatch(QUOTED, text):
        return text[1:-1].replace("''", "'") if text[0] == "'" else str(json.loads(text))
    if not text or text[0] in "\"'[]{}&*!|>%@`":
        raise ValueError(f"{text!r} is not a plain or quoted string on one line")
    return text
