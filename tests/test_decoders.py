"""Decoders against independent ones, on real files.

SHA-256 of stored values, as 32-bit little-endian integers, decoded by pylibjpeg-libjpeg 2.5.0 (JPEG
Lossless, JPEG-LS) and pylibjpeg-openjpeg 2.6.0 (JPEG 2000). RLE has the values of the same image as JPEG
2000. Lossy JPEG, where decoders differ by a grey level, has the means of 4 x 4 parts by pylibjpeg-libjpeg.
"""

import hashlib
import tarfile

import numpy as np
import pytest

from mammopath.images.codecs import stored_values
from mammopath.images.dicom_file import open_dicom

MAMMOGRAMS = {
    "GH133.dcm": "1828b8a291bea8e5196e3a3a4cb8f1b6658ba3687ba92973b8f52e9b276bc78a",
    "OutOfBoundsOverlay.dcm": "8fb76a8a3097a597c642f1196f8ec6f69d601f817516361bca07709e8369b701",
}
"""JPEG Lossless of two vendors."""

CT, CT1 = (
    "b76703cf422e7a4bfd3bacc7efe65162040fc973b794118b794f6c92910faaa6",
    "824141bed775b72b8c85c7a7d20073ba60314b4df4067746316120574db42594",
)
MR3, MR4, SMALL = (
    "4da69379e67e747b40c68df21c745cad749c64e2b9c927ff95dfcaec73deda89",
    "b5c9df142a1d965b311052fb903760d9e35f8bd5fd9e0c883293b1b5bfc91fc5",
    "b8d9a6cee6ff2ea9edbe8b476e54b80cfab8c6a15aff4d431b6c38840a20f7df",
)

OTHERS = {
    "CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm": CT,
    "JPEGLossless_1s_1f_i_16_16_bad.dcm": "5182dae2c90034b78107e00aa36cebccff69e8f4b17f9c327a1daf73f433a7f4",
    "jpeg_lossless_sel1.dcm": "fd7a92cd66f49599bc5871dcade40eeea65277eba25df992dd6691b1fbc90ac9",
    "CT-JPEGLosslessSV1.dcm": "e2632a06875062a302563149b0d0bab33183ebfe29af0e705fd3a320ee9dd12a",
    "MR4_JPLL": MR4,
    "MR3_JLSL": MR3,
    "MR4_JLSL": MR4,
    "MR_small_jpeg_ls_lossless.dcm": SMALL,
    "CT1_UNC.fragmented_bot_jpeg_ls.80.dcm": CT1,
    "MR1_JLSN": "23480e064c4529f6fce786bbfc353d5157fd19c6db63a08d21405b6feef98160",
    "JPEGLSNearLossless_16.dcm": "1d1ea445c998e392aa887448ec75ee5f9e66f7942127f128801f6ff6df2bada8",
    "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm": CT,
    "CT1_J2KR": CT1,
    "MR3_J2KR": MR3,
    "MR_small_jp2klossless.dcm": SMALL,
    "MR1_J2KI": "a163dea9c5dcf00198ea3731ef367d69314a1f7d8278124a8793ea43d8d18a7a",
    "MR4_J2KI": "2a426b1aa053f5df027bb13ad9549df0942c47c996f66a95a950e0f0eafaab1d",
    "ELSCINT1_JP2vsJ2K.dcm": "8e8a947905a6d80e1d98ad720e0bbaab0cf6f6df960f8b01797e9171ac3913db",
    "D_CLUNIE_CT1_RLE_FRAGS.dcm": CT1,
    "MR3_RLE": MR3,
    "MR_small_RLE.dcm": SMALL,
}

LOSSY = {
    "CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm": [
        [837.19, 1455.39, 1456.9, 837.5], [1647.49, 1890.05, 1910.47, 1698.34],
        [1926.8, 2019.78, 2041.54, 1924.99], [953.81, 1652.19, 1618.16, 901.9],
    ],
    "RG2_JPLY_fixed.dcm": [
        [824.69, 621.5, 152.21, 414.92], [712.17, 569.68, 398.8, 486.49],
        [541.88, 227.62, 461.66, 767.91], [367.8, 1.0, 23.98, 642.06],
    ],
    "CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm": [
        [51.37, 89.98, 90.11, 51.39], [102.07, 117.23, 118.49, 105.24],
        [119.51, 125.33, 126.69, 119.39], [58.7, 102.4, 100.29, 55.46],
    ],
}  # fmt: skip
"""Of 12, 10 and 8 bits."""

pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore")]


def decoded(path):
    return stored_values(open_dicom(path, pixels=True), path).values


def sha256(values):
    return hashlib.sha256(np.ascontiguousarray(values.astype("<i4"))).hexdigest()


@pytest.mark.parametrize("name", MAMMOGRAMS)
def test_mammograms_are_decoded_as_by_an_independent_decoder(shared_data, name):
    assert sha256(decoded(shared_data / "mammogram_dicom" / name)) == MAMMOGRAMS[name]


@pytest.fixture(scope="module")
def files(shared_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("decoders")
    with tarfile.open(shared_data / "badinputs.tar.xz") as archive:
        wanted = OTHERS.keys() | LOSSY.keys()
        members = [m for m in archive if m.name.split("__", 2)[-1] in wanted]
        archive.extractall(root, members, filter="data")
    return {path.name.split("__", 2)[-1]: path for path in (root / "badinputs" / "dicom").iterdir()}


@pytest.mark.slow
def test_every_lossless_syntax_is_decoded_as_by_an_independent_decoder(files):
    assert {name: sha256(decoded(files[name])) for name in OTHERS} == OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSY)
def test_lossy_jpeg_is_decoded_to_within_a_grey_level(files, name):
    values = decoded(files[name])
    height, width = (n // 4 for n in values.shape)
    parts = values[: 4 * height, : 4 * width].reshape(4, height, 4, width).mean((1, 3))
    assert np.abs(parts - LOSSY[name]).max() < 0.1
