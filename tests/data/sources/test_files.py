import io
import random
import tarfile

import pytest

from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.sources import files
from tempseg_jax.data.sources.files import FolderFiles, TarFiles, ZipFiles
from tests import miniatures

MEMBERS = {"top/a.txt": b"first", "top/b/c.txt": b"second"}


@pytest.fixture(params=["folder", "tar", "zip"])
def opened(request, tmp_path):
    if request.param == "folder":
        miniatures.write_folder(tmp_path, MEMBERS)
        return FolderFiles(tmp_path, folders=("top",))
    if request.param == "tar":
        miniatures.write_tar(tmp_path / "x.tar", MEMBERS)
        return TarFiles(tmp_path / "x.tar", prefix="")
    miniatures.write_zip(tmp_path / "x.zip", MEMBERS)
    return ZipFiles(tmp_path / "x.zip", prefix="top/")


def test_folders_tars_and_zips_are_read_the_same_way(opened):
    assert set(opened.names()) == set(MEMBERS)
    for name, data in MEMBERS.items():
        assert opened.read(name) == data and opened.size(name) == len(data)
    assert opened.size("absent") == 0
    with pytest.raises(BadFile, match="absent"):
        opened.read("absent")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_BYTES", 1000)
    bomb = {"top/bomb": b"\0" * 100_000}
    miniatures.write_zip(tmp_path / "x.zip", bomb)
    miniatures.write_tar(tmp_path / "x.tar", bomb)
    assert (tmp_path / "x.zip").stat().st_size < 1000
    for opened in (
        ZipFiles(tmp_path / "x.zip", prefix=""),
        TarFiles(tmp_path / "x.tar", prefix=""),
    ):
        with pytest.raises(
            BadFile, match="bomb: 100,000 bytes exceed the limit of 1,000"
        ):
            opened.read("top/bomb")


def test_a_zip_member_with_a_wrong_size_in_the_directory_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    miniatures.write_zip(path, {"bomb": b"\0" * 100_000})
    data = path.read_bytes().replace((100_000).to_bytes(4, "little"), b"\x10\0\0\0")
    path.write_bytes(data)
    with pytest.raises(BadFile, match="bomb: cannot be read"):
        ZipFiles(path, prefix="").read("bomb")


def test_links_and_devices_in_a_tar_are_ignored(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"top/link{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("top/file")
        archive.addfile(info, io.BytesIO())
    assert set(TarFiles(path, prefix="top/").names()) == {"file"}


def test_the_fingerprint_of_an_archive_changes_with_its_content(tmp_path):
    miniatures.write_zip(tmp_path / "x.zip", MEMBERS)
    before = ZipFiles(tmp_path / "x.zip", prefix="").fingerprint()
    miniatures.write_zip(tmp_path / "x.zip", MEMBERS | {"more": b""})
    assert ZipFiles(tmp_path / "x.zip", prefix="").fingerprint() != before


def test_an_archive_that_unpacks_to_too_much_in_total_is_refused(tmp_path, monkeypatch):
    # Each member is below the limit of one member.
    bombs = {f"top/{i}": b"\0" * 100_000 for i in range(20)}
    monkeypatch.setattr(files, "_MIN_TOTAL", 1_000_000)
    miniatures.write_zip(tmp_path / "x.zip", bombs)
    miniatures.write_tar(tmp_path / "x.tgz", bombs, mode="w:gz")
    message = "unpacks to more than 1,000,000 bytes, 100 times its size; download"
    with pytest.raises(ValueError, match=f"x.zip: it {message}"):
        ZipFiles(tmp_path / "x.zip", prefix="top/")
    with pytest.raises(ValueError, match=f"x.tgz: it {message}"):
        list(files.stream_tar(tmp_path / "x.tgz", wanted=lambda name: False))


def test_mutated_zips_are_read_or_refused_by_a_value_error(tmp_path):
    names = [f"a/{i}.txt" for i in range(4)]
    miniatures.write_zip(tmp_path / "x.zip", {name: b"text " * 50 for name in names})
    whole, path, refused = (tmp_path / "x.zip").read_bytes(), tmp_path / "y.zip", 0
    for seed in range(500):
        random_, data = random.Random(seed), bytearray(whole)
        for _ in range(random_.choice((1, 2, 8))):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        path.write_bytes(data)
        try:
            opened = ZipFiles(path, prefix="a/")
            for name in opened.names():
                opened.read(name)
        except ValueError as error:  # BadFile is one
            assert str(path) in str(error)
            refused += 1
    assert refused > 200
