import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from d2pd.errors import WeightsError
from d2pd.training.weights.numpy_pickle import PickledArray, load_numpy_pickle

NUMBERS = st.one_of(
    npst.boolean_dtypes(), npst.integer_dtypes(), npst.floating_dtypes(sizes=(16, 32, 64))
)
SMALL = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def load(content: bytes):
    return load_numpy_pickle(io.BytesIO(content), "file.pkl")


@settings(deadline=None, max_examples=60)
@given(array=npst.arrays(NUMBERS, SMALL), protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_arrays_come_back_exactly_from_every_protocol(array, protocol):
    read = load(pickle.dumps({"a": array}, protocol=protocol))["a"]
    assert isinstance(read, PickledArray)
    np.testing.assert_array_equal(read.value, array)
    assert read.value.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_columns_first_arrays_keep_their_rows(protocol):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(load(pickle.dumps(array, protocol=protocol)).value, array)


@pytest.mark.parametrize("number", [np.float64(0.25), np.int32(-7), np.bool_(True), np.float16(2)])
def test_numpy_scalars_become_python_numbers(number):
    read = load(pickle.dumps([number]))[0]
    assert read == number.item()
    assert type(read) is type(number.item())


def test_a_python_2_pickle_of_detectron_is_read():
    # What Python 2 wrote: protocol 2, the content of the array as an 8-bit string.
    raw = np.array([1.0, -2.5], dtype="<f4").tobytes()
    content = (
        b"\x80\x02}U\x05blobsU\x06conv_w"[:2]
        + b"}U\x06conv_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89U\x08"
        + raw
        + b"tbs."
    )
    np.testing.assert_array_equal(load(content)["conv_w"].value, [1.0, -2.5])


class Call:
    """Pickles as a call, which ``pickle.load`` makes."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_the_hostile_pickle_of_these_tests_does_act_when_loaded_freely(tmp_path):
    pickle.loads(pickle.dumps(Call(os.mkdir, str(tmp_path / "touched"))))
    assert (tmp_path / "touched").is_dir()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "function", [os.mkdir, os.open, eval, open, getattr, np.load, pickle.loads]
)
def test_a_pickle_that_calls_is_refused_and_nothing_happens(
    tmp_path, monkeypatch, protocol, function
):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"model": Call(function, "touched")}, protocol=protocol)
    with pytest.raises(WeightsError, match=r"file\.pkl asks for \S+.*nothing was loaded"):
        load(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"cd2pd.training.numpy_pickle\nload_numpy_pickle\n.",
        b"cbuiltins\n__import__\n(S'os'\ntR.",
        b"\x80\x04\x8c\x0acollections\x8c\x15OrderedDict.__class__\x93.",
        b"\x82\x01.",  # the extension registry
        b"Pdisk\n.",  # a persistent id
    ],
)
def test_other_ways_to_a_name_are_refused(content):
    with pytest.raises(WeightsError):
        load(content)


@pytest.mark.parametrize(
    "state", [b"}S'x'\nK\x01s", b"N}S'_answer'\nK\x01s\x86", b"N}S'__doc__'\nK\x01s\x86"]
)
def test_a_pickle_cannot_change_what_an_allowed_name_does(state):
    with pytest.raises(WeightsError, match="damaged"):
        load(b"ccollections\nOrderedDict\n" + state + b"b.")
    assert load(pickle.dumps(OrderedDict(a=1))) == {"a": 1}


def test_arrays_of_objects_and_records_are_refused():
    for array in (np.array([None]), np.zeros(2, dtype=[("a", "f4")]), np.array(["text"])):
        with pytest.raises(WeightsError, match="not a number|damaged"):
            load(pickle.dumps(array))


@pytest.mark.parametrize("shape", [(3,), (2, -1), (10**12,), (1.0, 2), "ab"])
def test_a_shape_that_the_bytes_do_not_fill_is_refused(shape):
    class Array:
        def __reduce__(self):
            rebuild, arguments, state = np.zeros(2, "f4").__reduce__()
            return rebuild, arguments, (state[0], shape, *state[2:])

    with pytest.raises(WeightsError, match="shape"):
        load(pickle.dumps(Array()))


def test_few_bytes_cannot_ask_for_much_memory():
    huge_memo = b"]r\xff\xff\xff\x7f."  # LONG_BINPUT at index 2**31 - 1
    assert load(huge_memo) == []
    with pytest.raises(WeightsError):
        load(b"cbuiltins\nbytearray\n(L99999999999999L\ntR.")
    with pytest.raises(WeightsError):
        load(b"\x8e" + struct.pack("<Q", 2**62) + b".")


def test_a_name_that_breaks_the_line_is_told_in_one():
    content = pickle.dumps({"w": np.arange(5, dtype="f4")})
    at = content.index(b"numpy")
    with pytest.raises(WeightsError, match="asks for") as caught:
        load(content[:at] + b"\n" + content[at + 1 :])
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_cut_or_damaged_pickle_is_a_weights_error_or_still_data(data):
    content = pickle.dumps({"w": np.arange(5, dtype="f4"), "b": [np.float32(1)], "n": "name"})
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at + 1 :]
    refusal = ""
    try:
        load(content)
    except WeightsError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert "file.pkl" in refusal or not refusal
