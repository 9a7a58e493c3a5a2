"""DICOM's run-length encoding, against pydicom's encoder and on frames that were cut or lie."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from mammopath.errors import ImageReadError
from mammopath.images.rle import decode_rle

PATH = Path("film.dcm")
SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=40)


def encoded(values):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.Rows, data.Columns, data.SamplesPerPixel = *values.shape, 1
    data.BitsAllocated = data.BitsStored = 8 * values.itemsize
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.compress(RLELossless, values, encoding_plugin="pydicom", generate_instance_uid=False)
    return next(generate_frames(data.PixelData, number_of_frames=1))


@given(arrays(np.uint16, SHAPES, elements=st.sampled_from([0, 1, 255, 256, 4095, 65535])))
def test_sixteen_bits_come_back_as_they_were_encoded(values):
    assert (decode_rle(encoded(values), values.shape, 2, PATH) == values).all()


@given(arrays(np.uint8, SHAPES))
def test_eight_bits_come_back_as_they_were_encoded(values):
    assert (decode_rle(encoded(values), values.shape, 1, PATH) == values).all()


@given(st.data())
def test_a_frame_cut_anywhere_is_refused(data):
    frame = encoded(np.arange(600, dtype=np.uint16).reshape(20, 30) * 50)
    cut = data.draw(st.integers(0, len(frame) - 3))  # the last byte may be padding
    with pytest.raises(ImageReadError) as told:
        decode_rle(frame[:cut], (20, 30), 2, PATH)
    assert told.value.code in {"truncated", "pixels"}


@given(st.binary(max_size=400))
def test_bytes_of_any_kind_end_in_pixels_or_in_the_one_error(noise):
    frame = struct.pack("<16L", 2, 64, 64 + len(noise) // 2, *[0] * 13) + noise
    with contextlib.suppress(ImageReadError):
        assert decode_rle(frame, (9, 9), 2, PATH).shape == (9, 9)


def test_segments_other_than_the_bytes_of_a_pixel_are_refused():
    frame = encoded(np.zeros((4, 4), np.uint16))
    with pytest.raises(ImageReadError, match="2 run-length segments"):
        decode_rle(frame, (4, 4), 1, PATH)


def test_more_pixels_than_the_header_says_are_refused():
    frame = encoded(np.arange(16, dtype=np.uint16).reshape(4, 4))
    with pytest.raises(ImageReadError, match="broken"):
        decode_rle(frame, (4, 3), 2, PATH)
