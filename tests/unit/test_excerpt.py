from installer.excerpt import excerpt


def test_a_place_is_shown_with_a_caret_below_it() -> None:
    assert excerpt(b"SELECT 1;\nSELECT x;\n", 17, exact=True) == (
        ":2:8",
        "   2 | SELECT x;\n     |        ^",
    )


def test_where_only_the_statement_is_known_its_first_word_is_meant() -> None:
    assert excerpt(b"-- why\n\n  SELECT x;\n", 0, exact=False) == (":3", "   3 |   SELECT x;")


def test_of_comments_alone_the_end_is_meant() -> None:
    assert excerpt(b"-- why\n\n", 0, exact=False) == (":3", "   3 | ")


def test_beyond_what_is_shown_of_a_line_there_is_no_caret() -> None:
    place, shown = excerpt(b"SELECT " + b"1, " * 100 + b"x", 307, exact=True)
    assert place == ":1:308"
    assert "^" not in shown


def test_what_would_drive_a_terminal_is_not_shown() -> None:
    assert excerpt(b"SELECT '\x1b[2J'", 0, exact=False)[1] == "   1 | SELECT '\ufffd[2J'"
