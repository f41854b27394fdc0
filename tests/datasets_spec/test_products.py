import pytest

from datasets_spec.products import (
    clean_brand,
    clean_category,
    clean_title,
    first_image,
    main_image,
    parse_price,
    parse_rank,
)


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Amazon&#39;s   Gift\nCard", "Amazon's Gift Card"),
        ("Cats &amp; Dogs <3", "Cats & Dogs <3"),
        ("Caf\u00e9&nbsp;&quot;Zwei&quot;&#x20;", 'Caf\u00e9 "Zwei"'),
        ("5 < a and b > 3, sizes {S, M}", "5 < a and b > 3, sizes {S, M}"),
        ("half a pair: \ud83d", "half a pair: \ufffd"),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_titles(raw, title):
    assert clean_title(raw) == (title, None)


@pytest.mark.parametrize(
    "raw",
    [
        '<span class="a-size-medium a-color-secondary"',
        "&lt;span&gt;encoded&lt;/span&gt;",
        "var aPageStart = (new Date()).getTime();",
        "<b>bold",
        "</span>",
        ".a-box { color: red; margin: 0; } Toy",
    ],
)
def test_pieces_of_web_pages_are_no_titles(raw):
    title, fault = clean_title(raw)
    assert title is None
    assert "a piece of a web page" in fault


def test_a_title_of_another_type_is_a_fault():
    assert clean_title(["x"]) == (None, "expected a text, got list")


def test_brands():
    assert clean_brand("by\n    \n    Acme &amp; Co") == "Acme & Co"
    assert clean_brand("by the sea") == "by the sea"
    assert clean_brand("<span>") is None
    assert clean_brand(3) is None


def test_category_paths():
    assert clean_category(["Toys &amp; Games", "Toys &amp; Games", "Puzzles", "</span></b>", 3, ""]) == (
        "Toys & Games > Puzzles"
    )
    assert clean_category([]) is None
    assert clean_category("Toys") is None


@pytest.mark.parametrize(
    ("raw", "price"),
    [
        ("$1,250.00", 1250.0),
        ("$7", 7.0),
        ("  $0.99 ", 0.99),
        ("$5.00 - $10.00", None),
        (".a{color:red}", None),
        ("", None),
        ("19.99", 19.99),
        ("from 14.99", None),
        ("\u2014", None),
        ("None", None),
        ("$" + "9" * 400, None),
        (None, None),
        (14.99, 14.99),
        (7, 7.0),
        (True, None),
        (-1.0, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (["$1"], None),
    ],
)
def test_prices(raw, price):
    assert parse_price(raw) == price


@pytest.mark.parametrize(
    ("raw", "rank"),
    [
        ("1,234 in Toys & Games (", 1234),
        ([">#98,765 in Gift Cards (See top 100)", ">#3 in X"], 98765),
        ([], None),
        ("", None),
        (None, None),
        (5, None),
        ([5, None, "#12 in X"], 12),
        ("9" * 30 + " in X", None),
    ],
)
def test_ranks(raw, rank):
    assert parse_rank(raw) == rank


def test_the_large_image_comes_first():
    assert first_image({"imageURLHighRes": ["https://h/l.jpg"], "imageURL": ["https://h/s.jpg"]}) == "https://h/l.jpg"
    assert first_image({"imageURLHighRes": [], "imageURL": ["https://h/s.jpg"]}) == "https://h/s.jpg"
    assert first_image({"imageURLHighRes": "file:///etc/passwd", "imageURL": ["ftp://h/s.jpg"]}) is None


def picture(variant, **sizes):
    return {"variant": variant, "thumb": None, "large": None, "hi_res": None} | sizes


def test_the_main_image_of_2023_comes_first_and_its_large_size():
    other = picture("PT01", large="https://h/other.jpg")
    main = picture("MAIN", thumb="https://h/t.jpg", large="https://h/l.jpg", hi_res="https://h/h.jpg")
    assert main_image([other, main]) == "https://h/l.jpg"
    assert main_image([other, main | {"large": None}]) == "https://h/h.jpg"
    assert main_image([picture("MAIN", thumb="https://h/t.jpg"), other]) == "https://h/t.jpg"
    assert main_image([picture("MAIN"), other]) == "https://h/other.jpg"
    assert main_image([{"large": "https://h/x.jpg"}]) == "https://h/x.jpg"


@pytest.mark.parametrize(
    "raw", [None, [], {}, "https://h/x.jpg", ["https://h/x.jpg"], [{"variant": "MAIN", "large": 3}]]
)
def test_no_image_of_2023(raw):
    assert main_image(raw) is None
