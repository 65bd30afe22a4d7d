"""TFRecord framing and the protobuf reader, against bytes that were written by hand."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from examples.write_datasets import encode_example, encode_varints, tfrecord
from robocache.datasets import DatasetError
from robocache.datasets.rlds.example import decode_varints, parse_example
from robocache.datasets.rlds.tfrecord import RecordFile, crc32c, masked_crc32c

# A record holding the two bytes "hi". The checksums are computed here bit by bit, by no library.
POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def crc_by_bits(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked_by_hand(data: bytes) -> int:
    crc = crc_by_bits(data)
    return ((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8 & 0xFFFFFFFF


def record_by_hand(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_by_hand(length)) + data + struct.pack("<I", masked_by_hand(data))


@pytest.mark.parametrize(
    ("data", "crc"),  # RFC 3720, appendix B.4
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc32c_of_known_vectors(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc == crc_by_bits(data)


@given(st.binary(max_size=40))
def test_the_mask(data: bytes) -> None:
    assert masked_crc32c(data) == masked_by_hand(data)
    assert tfrecord(data) == record_by_hand(data)


@pytest.fixture(params=["plain", "gzip"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    data = record_by_hand(b"hi") + record_by_hand(b"") + tfrecord(b"x" * 3_000_000) + record_by_hand(b"end")
    path = tmp_path / "records"
    path.write_bytes(gzip.compress(data, 1) if request.param == "gzip" else data)
    return path


def test_records_in_any_order(file: Path) -> None:
    records = RecordFile(file)
    places, damage = records.places()
    assert damage is None
    assert places[:, 1].tolist() == [2, 0, 3_000_000, 3]
    for index in (3, 0, 2, 1, 0):
        assert records.read(index) == (b"hi", b"", b"x" * 3_000_000, b"end")[index]
    with pytest.raises(DatasetError, match="record 4 is not there: the file holds 4"):
        records.read(4)
    records.close()
    assert records.read(0) == b"hi"


def test_an_empty_file_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    places, damage = RecordFile(tmp_path / "empty").places()
    assert (len(places), damage) == (0, None)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (5, "at byte 0: header is cut off"),
        (13, "at byte 0: 2 bytes claimed, 1 at most are there"),
        (17, "at byte 0: 2 bytes claimed"),
        (18 + 6, "at byte 18: header is cut off"),
    ],
)
def test_a_file_that_is_cut_off(tmp_path: Path, keep: int, message: str) -> None:
    path = tmp_path / "cut"
    path.write_bytes((record_by_hand(b"hi") * 2)[:keep])
    records = RecordFile(path)
    places, damage = records.places()
    assert len(places) == keep // 18
    assert damage is not None
    assert message in str(damage)
    assert str(path) in str(damage)
    with pytest.raises(DatasetError, match=message):
        records.read(len(places))


def test_a_gzip_stream_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    data = gzip.compress(record_by_hand(b"hi") + record_by_hand(bytes(range(256)) * 40))
    path.write_bytes(data[: len(data) - 60])
    places, damage = RecordFile(path).places()
    assert len(places) == 1
    assert damage is not None


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "flipped"
    data = record_by_hand(b"hi")
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(DatasetError, match="checksum|claimed"):
                RecordFile(path).read(0)


@pytest.mark.parametrize("length", [2**63, 2**40, 2**64 - 1, 2**64 - 20])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_absurd_length_allocates_nothing(tmp_path: Path, length: int, compressed: bool) -> None:
    import tracemalloc

    header = struct.pack("<Q", length)
    data = header + struct.pack("<I", masked_by_hand(header)) + b"x" * 100
    path = tmp_path / "absurd"
    path.write_bytes(gzip.compress(data) if compressed else data)
    tracemalloc.start()
    for checksums in (True, False):
        with pytest.raises(DatasetError, match=f"{length} bytes claimed"):
            RecordFile(path, checksums=checksums).read(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_without_checksums_data_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "flipped"
    data = bytearray(record_by_hand(b"hi"))
    data[12] ^= 1
    path.write_bytes(data)
    assert RecordFile(path, checksums=False).read(0) == b"ii"
    with pytest.raises(DatasetError, match="checksum of the data differs"):
        RecordFile(path).read(0)


# tf.train.Example{"f": [1.0, -2.0], "i": [1, 300, -1], "b": ["a", ""]} in wire format, packed as TensorFlow writes it.
PACKED = bytes.fromhex(
    "0a35"
    "0a11" "0a0166" "120c" "120a" "0a08" "0000803f" "000000c0"
    "0a17" "0a0169" "1212" "1a10" "0a0e" "01" "ac02" "ffffffffffffffffff01" "00"
    "0a07" "0a0162" "1202" "0a00"
)  # fmt: skip


def test_an_example_by_hand() -> None:
    features = parse_example(PACKED)
    assert features["f"].floats().tolist() == [1.0, -2.0]
    assert features["i"].ints().tolist() == [1, 300, -1, 0]
    assert features["b"].byte_strings() == []


def test_numbers_that_are_not_packed() -> None:
    # FloatList{value: 1.0, value: -2.0} and Int64List{value: 1, value: 300} with a tag each; then mixed.
    floats = bytes.fromhex("0d0000803f" "0d000000c0")  # fmt: skip
    ints = bytes.fromhex("0801" "08ac02" "0a0105" "0806")  # fmt: skip
    mixed = bytes.fromhex("0a040000803f" "0d000000c0")  # fmt: skip

    def wrapped(name: bytes, field: int, body: bytes) -> bytes:
        feature = bytes([field << 3 | 2, len(body)]) + body
        entry = bytes([0x0A, len(name)]) + name + bytes([0x12, len(feature)]) + feature
        return bytes([0x0A, len(entry)]) + entry

    body = wrapped(b"f", 2, floats) + wrapped(b"i", 3, ints) + wrapped(b"m", 2, mixed)
    features = parse_example(bytes([0x0A, len(body)]) + body)
    assert features["f"].floats().tolist() == [1.0, -2.0]
    assert features["i"].ints().tolist() == [1, 300, 5, 6]
    assert features["m"].floats().tolist() == [1.0, -2.0]


@given(
    hnp.arrays(np.int64, st.integers(0, 30), elements=st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 300)))
)
def test_varints_there_and_back(values: np.ndarray) -> None:
    assert decode_varints(encode_varints(values)).tolist() == values.tolist()
    assert encode_varints(values) == b"".join(varint(int(value)) for value in values)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("wrong", [b"\x80", b"\x01\xff", b"\x80" * 10 + b"\x01"])
def test_varints_that_are_none(wrong: bytes) -> None:
    with pytest.raises(DatasetError, match="varint"):
        decode_varints(wrong)


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.one_of(
            hnp.arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32)),
            hnp.arrays(np.int64, st.integers(0, 5)),
            st.lists(st.binary(max_size=9), max_size=4),
        ),
        max_size=5,
    )
)
def test_examples_there_and_back(content: dict) -> None:
    found = parse_example(encode_example(content))
    assert set(found) == set(content)
    for name, value in content.items():
        if isinstance(value, list):
            assert [bytes(item) for item in found[name].byte_strings()] == value
        elif value.dtype == np.float32:
            assert found[name].floats().tobytes() == value.tobytes()
        else:
            assert found[name].ints().tolist() == value.tolist()


@given(st.binary(max_size=60))
def test_any_bytes_are_an_example_or_an_error(data: bytes) -> None:
    touch(data)


@given(st.integers(0, 8 * len(PACKED) - 1), st.integers(0, len(PACKED)))
def test_a_damaged_example_is_read_or_an_error(bit: int, keep: int) -> None:
    damaged = bytearray(PACKED)
    damaged[bit // 8] ^= 1 << bit % 8
    touch(bytes(damaged))
    touch(PACKED[:keep])


def touch(data: bytes) -> None:
    try:
        features = parse_example(data)
    except DatasetError:
        return
    for feature in features.values():
        for read in (feature.floats, feature.ints, feature.byte_strings):
            with contextlib.suppress(DatasetError):
                assert len(read()) <= len(data)
