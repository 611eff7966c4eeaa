"""What is read out of pages: characters, text, links, date, language; and the summary of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_apps.clients.failures import Unreadable
from callboard_apps.clients.http import Page
from callboard_apps.knowledge.article import MOST_LINKS, MOST_TEXT, decode, read
from callboard_apps.knowledge.language import detect, primary
from callboard_apps.knowledge.summary import split_sentences, summarise, words

HTML = """<!doctype html><html lang="en"><head><title>Kettles</title></head><body><article>
<h1>Kettles</h1>
<p>A kettle boils water, and water that boils makes tea for all who wait in the kitchen.</p>
<p>The oldest kettle of the house is made of copper, and it sings a little before it boils over.</p>
</article></body></html>"""


def page(
    body: bytes | str,
    content_type: str = "text/html",
    charset: str | None = None,
    url: str = "http://h.test/d/p",
) -> Page:
    return Page(url, content_type, charset, body.encode() if isinstance(body, str) else body)


def test_a_page_is_read_whole() -> None:
    article = read(page(HTML))

    assert article.title == "Kettles"
    assert "copper" in article.text
    assert "<p>" not in article.text
    assert article.text_complete
    assert article.language == "en"
    assert article.date is None
    assert article.links == ()


@pytest.mark.parametrize(
    ("body", "charset", "expected"),
    [
        ("Grün".encode(), None, "Grün"),
        ("Grün".encode("latin-1"), "iso-8859-1", "Grün"),
        ("“Grün”".encode("cp1252"), "ISO-8859-1", "“Grün”"),
        ("Grün".encode("utf-16"), None, "Grün"),
        (b"\xef\xbb\xbfGr\xc3\xbcn", "iso-8859-1", "Grün"),
        ('<meta charset="cp1251">Привет'.encode("cp1251"), None, '<meta charset="cp1251">Привет'),
        ("坂の上".encode("shift_jis"), "Shift_JIS", "坂の上"),
        ("Grün".encode(), "no-such-charset", "Grün"),
        ("Grün".encode(), "rot13", "Grün"),
        ("Grün".encode(), "zip", "Grün"),
        ("Grün".encode(), "idna", "Grün"),
        (b"Gr\xfcn", "utf-8", "Gr\ufffdn"),
    ],
)
def test_characters_are_decoded_as_a_browser_would(body: bytes, charset: str | None, expected: str) -> None:
    assert decode(page(body, charset=charset)) == expected


def test_an_xml_declaration_does_not_stop_the_reading() -> None:
    assert read(page('<?xml version="1.0" encoding="iso-8859-1"?>\n' + HTML)).title == "Kettles"


def test_links_are_absolute_unique_and_of_the_web() -> None:
    anchors = """<a href="a.html#part"> one <b>two</b> </a><a href="/b">b</a><a href="a.html">again</a>
    <a href="mailto:x@h.test">mail</a><a href="javascript:alert(1)">js</a><a href="//o.test/c"></a>
    <a href="http://[broken">broken</a><a>no address</a>"""
    article = read(page(HTML.replace("</body>", anchors + "</body>")))

    assert [(link.url, link.text) for link in article.links] == [
        ("http://h.test/d/a.html", "one two"),
        ("http://h.test/b", "b"),
        ("http://o.test/c", ""),
    ]
    assert article.links_total == 3


def test_a_base_element_moves_the_links() -> None:
    body = HTML.replace("<head>", '<head><base href="/elsewhere/">').replace(
        "</body>", '<a href="x">x</a></body>'
    )

    assert read(page(body)).links[0].url == "http://h.test/elsewhere/x"


def test_what_is_kept_is_bounded_and_says_so() -> None:
    paragraphs = "".join(
        f"<p>Sentence number {i} speaks of kettle number {i} at length.</p>" for i in range(3000)
    )
    anchors = "".join(f'<a href="/{i}">{i}</a>' for i in range(500))
    article = read(page(HTML.replace("</article>", paragraphs + "</article>" + anchors)))

    assert len(article.text) == MOST_TEXT
    assert not article.text_complete
    assert len(article.links) == MOST_LINKS
    assert article.links_total == 500


@pytest.mark.parametrize("body", ["", "   ", "<html></html>", "<script>alert(1)</script>", "\0\0\0"])
def test_a_page_without_anything_to_read_is_a_permanent_failure(body: str) -> None:
    with pytest.raises(Unreadable):
        read(page(body))


def test_plain_text_has_its_first_line_as_title() -> None:
    article = read(
        page("\n# Notes \n\nBring them to the harbour office, please, before the tide turns.", "text/plain")
    )

    assert article.title == "Notes"
    assert article.text.startswith("# Notes")


@pytest.mark.parametrize(
    ("markup", "date"),
    [
        ('<meta property="article:published_time" content="2025-04-05T10:00:00Z">', "2025-04-05"),
        (
            '<script type="application/ld+json">{"@type":"Article","datePublished":"2024-02-29"}</script>',
            "2024-02-29",
        ),
        ("", None),
    ],
)
def test_the_date_comes_from_the_markup(markup: str, date: str | None) -> None:
    assert read(page(HTML.replace("</head>", markup + "</head>"))).date == date


def test_markup_of_any_depth_is_survived() -> None:
    try:
        article = read(page("<html><title>Deep</title><body>" + "<div>" * 5000 + "bottom"))
    except Unreadable:
        return  # to say that nothing can be read is an honest answer too
    assert article.title == "Deep"


GERMAN = "Der Kessel steht auf dem Herd, und wenn das Wasser kocht, gießt jemand den Tee für alle auf."


def test_a_clear_text_outweighs_what_its_page_says() -> None:
    assert detect(GERMAN, "en") == "de"
    assert detect(GERMAN, None) == "de"


def test_a_text_that_is_too_short_to_tell_is_what_its_page_says() -> None:
    assert detect("OK", "pt-BR") == "pt"
    assert detect("", "de") == "de"
    assert detect("", None) is None


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("de", "de"),
        ("pt-BR", "pt"),
        ("zh_TW", "zh"),
        ("EN", "en"),
        ("", None),
        (None, None),
        ("x", None),
        ("12", None),
    ],
)
def test_the_language_of_a_tag(tag: str | None, language: str | None) -> None:
    assert primary(tag) == language


def test_sentences_end_where_a_reader_would_end_them() -> None:
    text = (
        "Dr. Osgood lives here. She works, e.g. at night, until 3. May came!\nA heading\n"
        "“Is it late?” she asked… Yes. 朝が来た。夜が来た！"
    )

    assert split_sentences(text) == [
        "Dr. Osgood lives here.",
        "She works, e.g. at night, until 3. May came!",
        "A heading",
        "“Is it late?” she asked…",
        "Yes.",
        "朝が来た。",
        "夜が来た！",
    ]


def test_words_of_scripts_without_spaces_are_pairs() -> None:
    assert words("Red RED kettle_2") == ["red", "red", "kettle", "2"]
    assert words("朝が来た tea") == ["朝が", "が来", "来た", "tea"]


def test_a_summary_leaves_out_headings_and_repetitions() -> None:
    text = (
        "All about kettles in this house\n"
        "The copper kettle sings before it boils. The copper kettle sings before it boils. "
        "Nobody knows who bought the copper kettle in the first place. "
        "A cat sleeps by the stove on winter days."
    )

    summary = summarise(text, title="All about kettles in this house")

    assert summary.count("sings before it boils") == 1
    assert "All about" not in summary


def test_a_text_without_sentences_is_cut() -> None:
    assert summarise("word " * 500, max_characters=50).endswith("…")
    assert len(summarise("word " * 500, max_characters=50)) <= 50
    assert summarise("") == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["a. ", ". ", "word ", "! ", "。", "x.y.z. a "])
def test_a_monotonous_text_takes_no_long_time(piece: str) -> None:
    summarise(piece * (MOST_TEXT // len(piece)))


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=400),
    st.integers(1, 5),
    st.integers(20, 300),
)
def test_a_summary_is_bounded_repeatable_and_made_of_the_text(text: str, sentences: int, most: int) -> None:
    summary = summarise(text, sentences=sentences, max_characters=most)

    assert len(summary) <= most
    assert summary == summarise(text, sentences=sentences, max_characters=most)
    flat = " ".join(text.split())
    for sentence in split_sentences(summary):
        assert " ".join(sentence.rstrip("…").split()) in flat
