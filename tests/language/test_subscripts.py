import pytest

from gpueinsum.errors import SubscriptsError
from gpueinsum.language.subscripts import _read_plain, _read_text, _resolve, parse, parse_interleaved

READINGS = [
    ("ij,jk->ik", [(2, 3), (3, 5)], "ij,jk->ik"),
    ("ij,jk", [(2, 3), (3, 5)], "ij,jk->ik"),
    ("kj,ji", [(2, 3), (3, 5)], "kj,ji->ik"),  # an implicit output is in alphabetical order
    ("bA,bc", [(2, 3), (2, 5)], "bA,bc->Ac"),  # in which capitals come first, as in numpy
    (" i j ,\tjk -> k i ", [(2, 3), (3, 5)], "ij,jk->ki"),
    ("ii", [(3, 3)], "ii->"),
    ("i->ii", [(3,)], "i->ii"),
    ("", [()], "->"),
    (",->", [(), ()], ",->"),
    ("日本,本語->日語", [(2, 3), (3, 5)], "日本,本語->日語"),
    ("...ij,...jk", [(7, 2, 3), (7, 3, 5)], "Aij,Ajk->Aik"),
    ("i...->...i", [(2, 3, 5)], "iAB->ABi"),
    ("...,...", [(3,), (2, 3)], "B,AB->AB"),  # ellipses line up at the right
    ("...i->i", [(2, 3, 5)], "ABi->i"),  # and may be summed away
    ("ij...->ij...", [(2, 3)], "ij->ij"),
    ("i,i->i", [(1,), (5,)], "A,i->i"),  # a broadcast axis is a label of its own
    ("i,ii->", [(3,), (1, 1)], "i,AB->"),
    ("...i,i->...", [(1, 3), (3,)], "Ai,i->A"),
    ("i,i->i", [(1,), (0,)], "A,i->i"),
]


@pytest.mark.parametrize(("text", "shapes", "meaning"), READINGS)
def test_text_is_read_as_numpy_reads_it(text, shapes, meaning):
    assert str(parse(text, shapes)) == meaning


def test_every_label_has_one_size():
    assert dict(parse("...i,i", [(1, 3), (1,)]).sizes) == {"A": 1, "i": 3, "B": 1}


INTERLEAVED = [
    ([(0, 1), (1, 2)], None, "AB,BC->AC"),
    ([(5, 1), (1, 2)], None, "CA,AB->BC"),  # labels keep their own order
    ([("i", "j"), ("j", "k")], ("k", "i"), "ij,jk->ki"),
    ([("batch", "i"), ("i", "out")], ("batch", "out"), "AB,BC->AC"),
    ([(..., 0), (0, ...)], (...,), "BA,AB->B"),
    ([("x", 1), (1, None)], None, "AB,BC->AC"),  # labels without a common order keep that of appearance
]


@pytest.mark.parametrize(("sublists", "output", "meaning"), INTERLEAVED)
def test_interleaved_labels_may_be_anything_hashable(sublists, output, meaning):
    size = {0: 2, 1: 3, 2: 5, 5: 7, "i": 2, "j": 3, "k": 5, "batch": 2, "out": 3, "x": 7, None: 2, ...: 11}
    assert str(parse_interleaved(sublists, output, [tuple(size[x] for x in term) for term in sublists])) == meaning


def test_an_expression_may_have_more_labels_than_the_alphabet():
    terms = [tuple(range(60)), tuple(range(40, 100))]
    subscripts = parse_interleaved(terms, None, [(1,) * 60] * 2)
    assert len(set(subscripts.output)) == 80
    assert subscripts.output == "".join(sorted(subscripts.output))


@pytest.mark.parametrize(
    ("text", "shapes", "is_plain"),
    [
        ("ij,jk->ik", [(2, 3), (3, 5)], True),
        (",ii->i", [(), (3, 3)], True),
        ("×é,é日->日×", [(2, 3), (3, 5)], True),
        ("ij, jk -> ik", [(2, 3), (3, 5)], False),
        ("ij,jk", [(2, 3), (3, 5)], False),
        ("...j,jk->...k", [(2, 3), (3, 5)], False),
        ("i,i->i", [(1,), (5,)], False),
    ],
)
def test_plain_texts_are_read_without_tokens_to_the_same_end(text, shapes, is_plain):
    plain, by_token = _read_plain(text, shapes), _resolve(_read_text(text), shapes)
    assert plain == (by_token if is_plain else None)


ERRORS = [
    ("ij,jk->ik", [(2, 4), (5, 3)], "label 'j' is 4 in operand 0 but 5 in operand 1", "ij,jk->ik\n     ^ ^"),
    ("日本,本語", [(2, 4), (5, 3)], "label '本' is 4 in operand 0", "日本,本語\n      ^^ ^^"),  # two columns wide each
    ("ii->i", [(1, 3)], "label 'i' is both 1 and 3 in operand 0", "ii->i\n    ^^"),
    ("...i,...i", [(2, 3), (5, 3)], "an axis of '...' is 2 in operand 0 but 5 in operand 1", "^^^  ^^^"),
    ("ij", [(2,)], "operand 0 has 1 dimension, but its term has 2 labels", "ij\n    ^^"),
    ("i,jk", [(2,), (2, 3, 5)], "operand 1 has 3 dimensions, but its term has 2 labels", "i,jk\n      ^^"),
    ("ij...", [(2,)], "operand 0 has 1 dimension, but its term has 2 labels", "^^^^^"),
    ("i,j,k", [(2,), (3,)], "3 terms but 2 operands", "i,j,k\n        ^"),
    ("i", [(2,), (3,)], "2 operands but 1 term", "i\n    ^"),
    ("i->j", [(2,)], "output label 'j' is in no operand", "i->j\n       ^"),
    ("i->i->i", [(2,)], "a second '->'", "i->i->i\n     ^^ ^^"),
    ("i->i,i", [(2,)], "a ',' in the output", "i->i,i\n        ^"),
    ("i-j", [(2, 3)], "'-' that is not part of an arrow, '->'", "i-j\n     ^"),
    ("i>j", [(2, 3)], "'>' that is not part of an arrow, '->'", "i>j\n     ^"),
    ("i.j", [(2, 3)], "'.' that is not part of an ellipsis, '...'", "i.j\n     ^"),
    ("....i", [(2, 3)], "'.' that is not part of an ellipsis, '...'", "....i\n       ^"),
    ("...i...", [(2, 3)], "more than one ellipsis in a term", "...i...\n    ^^^ ^^^"),
    ("i->......", [(2,)], "more than one ellipsis in a term", "^^^^^^"),
    ("i1", [(2, 3)], "'1' cannot be a label", "i1\n     ^"),
    ("$", [(2,)], "'$' cannot be a label", "$\n    ^"),
]


@pytest.mark.parametrize(("text", "shapes", "message", "picture"), ERRORS)
def test_an_error_says_what_is_wrong_and_points_at_it(text, shapes, message, picture):
    with pytest.raises(SubscriptsError) as caught:
        parse(text, shapes)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(picture)


def test_an_error_in_the_interleaved_form_points_into_the_lists():
    with pytest.raises(SubscriptsError) as caught:
        parse_interleaved([("row", 1), (1, 2)], ("row", 2), [(2, 3), (5, 7)])
    assert str(caught.value) == (
        "label 1 is 3 in operand 0 but 5 in operand 1\n    ['row', 1], [1, 2] -> ['row', 2]\n            ^    ^"
    )
