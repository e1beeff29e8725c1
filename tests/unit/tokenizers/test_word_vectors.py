import gzip
import pickle

import numpy as np
import pytest
from torchtext.vocab import Vectors

from seq2seq.errors import UserError
from seq2seq.tokenizers.word_vectors import load_vectors

GLOVE = "the 0.5 -1 2e-3\ncat 1 2 3\nnaïve .1 .2 .3\n. . . 7 8 9\nthe 9 9 9\n"
TOKENS = ["<pad>", "cat", "the", "naïve", "dog", "."]


def write(tmp_path, content, name="vectors.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_are_in_the_order_of_the_tokens(tmp_path):
    vectors, found = load_vectors(write(tmp_path, GLOVE), TOKENS)
    assert vectors.dtype == np.float32
    assert found.tolist() == [False, True, True, True, False, False]
    expected = [[0, 0, 0], [1, 2, 3], [0.5, -1, 2e-3], [0.1, 0.2, 0.3], [0, 0, 0], [0, 0, 0]]
    assert np.array_equal(vectors, np.array(expected, dtype=np.float32))


def test_the_largest_numbers_of_32_bits_are_read(tmp_path):
    largest = float(np.finfo(np.float32).max)
    vectors, _ = load_vectors(write(tmp_path, f"cat {largest!r} {-largest!r}\n"), ["cat"])
    assert vectors.tolist() == [[largest, -largest]]


def test_values_equal_torchtexts(tmp_path):
    generator = np.random.default_rng(0)
    lines = [f"w{i} " + " ".join(map(repr, row)) for i, row in enumerate(generator.normal(size=(20, 7)).tolist())]
    path = write(tmp_path, "\n".join(lines) + "\n")
    vectors, found = load_vectors(path, [f"w{i}" for i in range(20)])
    oracle = Vectors(str(path), cache=str(tmp_path / "cache"))
    assert found.all()
    assert np.array_equal(vectors, oracle.vectors.numpy())


@pytest.mark.parametrize("content", ["2 3\ncat 1 2 3 \nthe 4 5 6 \n", "cat 1 2 3\r\nthe 4 5 6"])
@pytest.mark.parametrize("packed", [True, False])
def test_headers_trailing_spaces_and_gzip(tmp_path, content, packed):
    data = content.encode()
    path = write(tmp_path, gzip.compress(data) if packed else data, "v.vec.gz" if packed else "v.vec")
    vectors, found = load_vectors(path, ["the", "cat"])
    assert found.all()
    assert vectors.tolist() == [[4, 5, 6], [1, 2, 3]]


def test_odd_words_do_not_split_or_stop_lines(tmp_path):
    content = "a\u0085b 1 2\n\u2028 3 4\n".encode() + b"\xff\xfe 5 6\ncat 7 8\n"
    vectors, found = load_vectors(write(tmp_path, content), ["cat", "a\u0085b"])
    assert found.all()
    assert vectors.tolist() == [[7, 8], [1, 2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"cat\n", ":1: 'cat' is not a word"),
        (b"cat 1 2\ndog 1\n", ":2 has 1 numbers after the word, but the dimension is 2"),
        (b"cat 1 2\n\ndog 1 2\n", ":2 has 0 numbers"),
        (b"cat 1 2\ndog 1 x\n", ":2 does not end with 2 numbers"),
        (b"cat 1 2\nzebra 1 x 2 y\n", ":2 does not end with 2 numbers"),
        (b"cat 1 nan\n", ":1 has a number that is not finite"),
        (b"3 2\ncat 1 2\ndog 1 2\n", ":1 announces 3 vectors, but 2 follow"),
        (b"cat 1 inf\n", ":1 has a number that is not finite"),
        (b"cat 1 1e39\n", ":1 has a number that is not finite in float32"),
        (b"999999999999 2\ncat 1 2\n", ":1 announces 999999999999 vectors, but 1 follow"),
        (b"1 999999999999\ncat 1 2\n", ":2 has 2 numbers after the word, but the dimension is 999999999999"),
        (b"0 999999999999\n", "empty"),
        (b"9" * 5000 + b" 2\ncat 1 2\n", "is not a valid number of vectors"),
        (b"9" * 19 + b" 2\ncat 1 2\n", "is not a valid number of vectors"),
        (b"9" * 18 + b" 2\ncat 1 2\n", f":1 announces {'9' * 18} vectors"),
        (b"2 0\n", "not a word followed by its numbers"),
        (b"cat 1 2\n\0\0\0", ":2 is not text"),
        (b"x" * (1 << 21), ":1 is not text"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        load_vectors(path, ["cat", "dog"])
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_unreadable_files_are_named(tmp_path):
    half = gzip.compress(GLOVE.encode() * 100)[:40]
    for path in (
        tmp_path,
        tmp_path / "absent.txt",
        write(tmp_path, half, "half.gz"),
        write(tmp_path, "x", "no.gz"),
    ):
        with pytest.raises(UserError, match="cannot be read"):
            load_vectors(path, ["cat"])


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def test_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    for name in ("vectors.pt", "vectors.txt"):
        with pytest.raises(UserError, match="vectors"):
            load_vectors(write(tmp_path, pickle.dumps(Bomb()), name), ["cat"])
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"vectors.pt", "vectors.txt"}  # no cache is written
