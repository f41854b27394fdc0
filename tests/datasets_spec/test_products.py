import pytest

from datasets_spec.products import clean_brand, clean_category, clean_title, first_image, parse_price, parse_rank


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Amazon&#39;s   Gift\nCard", "Amazon's Gift Card"),
        ("Cats &amp; Dogs <3", "Cats & Dogs <3"),
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
    ],
)
def test_ranks(raw, rank):
    assert parse_rank(raw) == rank


def test_the_large_image_comes_first():
    assert first_image({"imageURLHighRes": ["https://h/l.jpg"], "imageURL": ["https://h/s.jpg"]}) == "https://h/l.jpg"
    assert first_image({"imageURLHighRes": [], "imageURL": ["https://h/s.jpg"]}) == "https://h/s.jpg"
    assert first_image({"imageURLHighRes": "file:///etc/passwd", "imageURL": ["ftp://h/s.jpg"]}) is None
