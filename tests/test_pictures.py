"""Pictures of a dataset are read in threads, and refused where they are damaged."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import picture

from tfds_builders.pictures import check_picture, in_threads


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_pictures_are_refused_with_one_message(data):
    content = bytearray(picture(1, data.draw(st.sampled_from(["JPEG", "PNG"]))))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        check_picture(content, "some.jpg")
    except ValueError as error:
        assert str(error).startswith("some.jpg: ")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_truncated_pictures_are_refused(file_format):
    content = picture(0, file_format)
    check_picture(content, "whole")
    for length in range(0, len(content) - 20, 7):
        with pytest.raises(ValueError, match=r"half: (cannot be decoded|the file is empty)"):
            check_picture(content[:length], "half")


def test_threads_keep_the_order_and_stop_at_the_first_failure():
    def slow_square(number):
        time.sleep(0.001 * (number % 3))
        if number == 150:
            raise ValueError("150")
        return number**2

    results = in_threads(slow_square, range(10**9))
    for number in range(150):
        assert next(results) == number**2
    with pytest.raises(ValueError, match="150"):
        next(results)
