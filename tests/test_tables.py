"""Tables that people edit, as spreadsheets and other systems save them."""

import unicodedata

import pytest

from pipeline.machinery.errors import UserError
from pipeline.machinery.tables import AmbiguousNameError, Names, find_name, read_table

IMAGES = ["가방/끈 1.jpg", "가방/끈 2.jpg", "Chaussée.png", "バッグ.jpg", "a,b.jpg", "=1.jpg"]
TEXT = "image,label\r\n가방/끈 1.jpg,끈\r\n가방/끈 2.jpg,손잡이\r\n"


def read(tmp_path, content: bytes, columns=("image", "label")) -> list[tuple[str | None, str]]:
    """Read a table; returns the image that each line names, and its label."""
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    names = Names(IMAGES)
    return [(find_name(names, row, "image", path), row.cells["label"]) for row in read_table(path, columns, names)]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("cp949"),
        TEXT.replace(",", ";").encode("utf-8-sig"),
        TEXT.replace(",", "\t").encode("utf-16"),
        ("sep=;\r\n" + TEXT.replace(",", ";")).encode(),
        TEXT.replace("\r\n", "\r").encode(),
        TEXT.replace(",", " , ").encode(),
        TEXT.replace("image,label", "Image, LABEL").encode(),
        ("\n" + TEXT + ",,\r\n,\r\n\r\n").encode(),
        TEXT.replace("image,label", "image,label,,").encode(),
        TEXT.replace("\r\n", ",,\r\n").encode(),
        TEXT.replace("label", "note,label").replace("jpg,", "jpg,old,").encode(),
        unicodedata.normalize("NFD", TEXT).encode(),
        TEXT.replace("/", "\\").replace("jpg", "JPG").encode(),
        TEXT.replace("가방/", "").encode(),
        TEXT.replace("가방/끈 1.jpg", '"가방/끈 1.jpg"').encode(),
    ],
    ids=range(20),
)
def test_one_table_in_many_forms(tmp_path, content):
    found = [(image, unicodedata.normalize("NFC", label)) for image, label in read(tmp_path, content)]
    assert found == [("가방/끈 1.jpg", "끈"), ("가방/끈 2.jpg", "손잡이")]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("가방/끈 1.jpg", "cp949"), ("Chaussée.png", "cp1252"), ("バッグ.jpg", "cp932")],
)
def test_the_code_page_is_the_one_under_which_names_are_known(tmp_path, name, encoding):
    assert read(tmp_path, f"image,label\n{name},x\n".encode(encoding)) == [(name, "x")]


def test_a_name_with_a_comma_is_quoted_and_one_like_a_formula_may_have_its_apostrophe(tmp_path):
    assert read(tmp_path, b'image,label\n"a,b.jpg",x\n\'=1.jpg,y\n') == [("a,b.jpg", "x"), ("=1.jpg", "y")]


def test_an_image_that_is_gone_has_no_name(tmp_path):
    assert read(tmp_path, b"image,label\ngone.jpg,x\n") == [(None, "x")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"image,label\na,b.jpg,x\n", "line 2: 3 cells, though the first line names 2 columns"),
        (b"image,label\n\n\n=1.jpg,\n", "line 4: no label: fill that cell"),
        (b"file,label\n=1.jpg,x\n", "lacks the column image: its first line must name the columns image, label"),
        (b"", "lacks the column image"),
        (b"image,label,label\n=1.jpg,x,y\n", "two columns label"),
        (b'image,label\n"=1.jpg,x\n', "line 2: unexpected end of data"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "can't be read as text"),
    ],
)
def test_what_is_no_such_table_is_said_with_its_line(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, content)


def test_a_name_that_may_be_one_of_two_images_is_ambiguous(tmp_path):
    names = Names(["a/1.jpg", "b/1.jpg", "X.jpg", "x.jpg"])
    assert names.find("X.jpg") == "X.jpg" and names.find("B/1.JPG") == "b/1.jpg"
    for text in ("1.jpg", "X.JPG"):
        with pytest.raises(AmbiguousNameError, match=" or "):
            names.find(text)
    path = tmp_path / "labels.csv"
    path.write_text("image,label\n1.jpg,x\n")
    with pytest.raises(UserError, match=r"line 2: '1\.jpg' may be a/1\.jpg or b/1\.jpg: write the whole name"):
        find_name(names, read_table(path, ["image", "label"], names)[0], "image", path)


def test_the_unicode_forms_of_one_name_may_be_two_images():
    composed, decomposed = (unicodedata.normalize(form, "가.jpg") for form in ("NFC", "NFD"))
    names = Names([composed, decomposed])
    assert (names.find(composed), names.find(decomposed)) == (composed, decomposed)
