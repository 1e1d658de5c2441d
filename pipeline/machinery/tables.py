"""Tables that people edit, read as spreadsheets save them.

A spreadsheet may save a table with semicolons or tabs, in UTF-16 or in the system's code page, with empty rows at the
end, with blanks around cells, with further columns; a name may come in another Unicode form than the file has. What
has one meaning is taken; what is ambiguous is an error that names the line, the value and the remedy.
"""

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path

DELIMITERS = (",", ";", "\t", "|")
# byte order marks, the longer ones first: that of UTF-16 begins that of UTF-32
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
         (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))  # fmt: skip
# encodings without a mark: of those that can be read, the first under which most names are known. After UTF-8 the
# code pages of spreadsheets in Korean, Japanese, Chinese (two) and western languages
ENCODINGS = ("utf-8", "cp949", "cp932", "gb18030", "cp950", "cp1252")
BLANK = " \t\r\n\v\f\u00a0\u3000\ufeff\u200b"  # blanks that nobody sees, the no-break and the ideographic one included


class Row(NamedTuple):
    """One row of a table: the line that it ends on, and its cells by column, without blanks around them."""

    line: int
    cells: dict[str, str]


class AmbiguousNameError(Exception):
    """A name that may mean several images; the argument says which."""


class Names:
    r"""The names of images, found by what a person or a spreadsheet makes of them.

    >>> names = Names(["bags/A 1.jpg", "bags/b.jpg"])
    >>> names.find("bags\\a 1.JPG"), names.find("b.jpg"), names.find("c.jpg")
    ('bags/A 1.jpg', 'bags/b.jpg', None)
    """

    def __init__(self, names: Iterable[str]):
        self.exact = set(names)
        self.by_key: defaultdict[str, list[str]] = defaultdict(list)  # key, and key without folders -> names
        for name in sorted(self.exact):
            key = _simplify(name)
            for each in {key, key.rpartition("/")[2]}:
                self.by_key[each].append(name)

    def find(self, text: str) -> str | None:
        """Return the image that `text` names, or None; raises AmbiguousNameError where it may be one of several.

        The exact name comes first. Else blanks around it, capitals, the Unicode form, the direction of slashes and an
        apostrophe that a spreadsheet needs before "=" make no difference, and a name without its folder is enough.
        """
        if text in self.exact:
            return text
        for key in (_simplify(text), _simplify(text.strip(BLANK).removeprefix("'"))):
            found = self.by_key.get(key, [])
            whole = [name for name in found if _simplify(name) == key] or found
            if len(whole) > 1:
                raise AmbiguousNameError(" or ".join(whole[:3]) + (", ..." if len(whole) > 3 else ""))
            if whole:
                return whole[0]
        return None


def read_table(path: Path, columns: Sequence[str], names: Names | None = None) -> list[Row]:
    """Read the rows of a table that people edit; empty rows are left out.

    columns : names of the columns needed, in any case and order among others
    names : the images that cells of the table name, by which its encoding is told

    Raises UserError, with the line and what to do, where the file is no such table.
    """
    data = path.read_bytes()
    lines = list(io.StringIO(_decode(data, names, path), newline=""))
    header, delimiter, n_before = _find_header(lines, columns, path)
    reader = csv.reader(lines[n_before:], delimiter=delimiter, strict=True)
    rows = []
    try:
        for cells in reader:
            row = _row(cells, header, columns, f"{display_path(path)}, line {n_before + reader.line_num}")
            if row:
                rows.append(Row(n_before + reader.line_num, row))
    except csv.Error as error:
        where = f"{display_path(path)}, line {n_before + reader.line_num}"
        raise UserError(f"{where}: {error}: correct the quotation marks of that line") from None
    return rows


def _find_header(lines: list[str], columns: Sequence[str], path: Path) -> tuple[list[str], str, int]:
    """Return the names of the columns, the delimiter, and the number of lines up to the one that names the columns."""
    filled = [number for number, line in enumerate(lines, start=1) if line.strip(BLANK)]
    told = lines[filled[0] - 1].strip(BLANK).casefold() if filled else ""
    delimiters: Sequence[str] = DELIMITERS
    if told.startswith("sep=") and len(told) == 5:  # a first line that spreadsheets understand
        delimiters, filled = (told[4],), filled[1:]
    first = lines[filled[0] - 1] if filled else ""
    try:
        headers = {d: [_header(cell) for cell in next(csv.reader([first], delimiter=d), [])] for d in delimiters}
    except csv.Error:
        headers = {",": []}
    for delimiter, header in headers.items():
        if set(columns) <= set(header):
            if twice := next((name for name in columns if header.count(name) > 1), None):
                raise UserError(f"{display_path(path)} has two columns {twice}: remove or rename one")
            return header, delimiter, filled[0]
    missing = next(name for name in columns if name not in max(headers.values(), key=len))
    raise UserError(
        f"{display_path(path)} lacks the column {missing}: its first line must name the columns {', '.join(columns)}, "
        f"with commas, semicolons or tabs between them, not {first.strip(BLANK)[:80]!r}"
    )


def find_name(names: Names, row: Row, column: str, path: Path) -> str | None:
    """Return the image that a cell names, or None where there is none (any more); ambiguous names are a UserError."""
    try:
        return names.find(row.cells[column])
    except AmbiguousNameError as error:
        raise UserError(
            f"{display_path(path)}, line {row.line}: {row.cells[column]!r} may be {error}: write the whole name"
        ) from None


def _row(cells: list[str], header: list[str], columns: Sequence[str], where: str) -> dict[str, str] | None:
    """Return the cells of a row by column, or None for an empty one; raises UserError where their number is wrong."""
    cells = [cell.strip(BLANK) for cell in cells]
    if not any(cells):
        return None
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) > len(header):
        raise UserError(
            f"{where}: {len(cells)} cells, though the first line names {len(header)} columns: put a cell that holds "
            'the separator into double quotes ("like, this")'
        )
    row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
    if empty := next((name for name in columns if not row[name]), None):
        raise UserError(f"{where}: no {empty}: fill that cell, or remove the line")
    return row


def _decode(data: bytes, names: Names | None, path: Path) -> str:
    """Return the text of a file whose encoding nobody told."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeError:
                break
    texts = []
    if not any(data.startswith(mark) for mark, _ in MARKS):
        # text in UTF-16 without a mark has a zero in every other byte of its first line
        zeros = [data[start:100:2].count(0) for start in (0, 1)]
        encodings = ENCODINGS if not any(zeros) else ("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le",)
        for encoding in encodings:
            try:
                texts.append(data.decode(encoding))
            except UnicodeError:
                continue
            if encoding == "utf-8":  # hardly any text of another encoding can be read as UTF-8
                break
    texts = [text for text in texts if "\0" not in text]
    if not texts:
        raise UserError(
            f"{display_path(path)} can't be read as text: save it from the spreadsheet as CSV with the encoding UTF-8"
        )
    return max(texts, key=lambda text: _count_known(text, names))  # the first of the best


def _count_known(text: str, names: Names | None) -> int:
    """Return how many cells of a table name an image, whatever its delimiter is."""
    if names is None:
        return 0
    for delimiter in DELIMITERS[1:]:
        text = text.replace(delimiter, ",")
    cells = (cell.strip(BLANK + '"') for line in text.splitlines() for cell in line.split(","))
    return sum(cell in names.exact or _simplify(cell) in names.by_key for cell in cells)


def _header(text: str) -> str:
    """Return the name of a column as it is compared."""
    return unicodedata.normalize("NFC", text).strip(BLANK + '"').casefold().replace(" ", "_")


def _simplify(name: str) -> str:
    """Return a name without what differs between systems and spreadsheets."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip(BLANK).casefold()).replace("\\", "/")
