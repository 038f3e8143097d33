"""Archives that want to write elsewhere, that are broken, that come in pieces; and what is left on disk."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from olmo.data.download.archives import Archive, as_archives, unpack, whole_name
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError


def tar(path, *members, mode="w"):
    """Members: (name, content) or TarInfo objects without content."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def linked_zip(path, name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped(path, (info, target))


@pytest.fixture
def place(tmp_path):
    """A folder of archives, and beside it what must stay as it is."""
    (tmp_path / "set").mkdir()
    (tmp_path / "secret").write_text("untouched")
    return tmp_path / "set"


def run(*files):
    """Unpack beside the archive, as the downloader does."""
    folder = files[0].parent
    (archive,) = as_archives(files)
    return unpack(archive, folder, folder / ".download" / "unpacking")


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


FILES = (("videos/a.mp4", b"a" * 3000), ("videos/deep/b.mp4", b"b"), ("list.json", b"[]"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_every_kind(place, kind):
    path = place / f"x.{kind}"
    if kind == "zip":
        zipped(path, ("videos/", b""), *FILES)
    else:
        tar(path, special("videos", tarfile.DIRTYPE), *FILES, mode=f"w:{kind.partition('.')[2] or {'tgz': 'gz'}.get(kind, '')}")
    assert run(path) == 3
    path.unlink()
    assert tree(place) == dict(FILES) and not (place / ".download" / "unpacking").exists()


def test_folders_are_joined_and_files_replaced(place):
    (place / "videos").mkdir()
    (place / "videos/a.mp4").write_bytes(b"cut")
    (place / "videos/mine.mp4").write_bytes(b"mine")
    run(zipped(place / "x.zip", *FILES))
    assert (place / "videos/a.mp4").read_bytes() == b"a" * 3000 and (place / "videos/mine.mp4").read_bytes() == b"mine"


ESCAPES = ["../secret", "{parent}/secret", "a/../../secret", "C:/secret", "videos/../../../secret"]


@pytest.mark.parametrize(("kind", "name"), [*((kind, name) for kind in (zipped, tar) for name in ESCAPES), (zipped, "..\\secret")])
def test_no_member_leaves_the_folder(place, name, kind):
    """Seen to fail without the check of names: `secret` is overwritten. Nothing of the archive stays, not even its good members."""
    path = kind(place / "x.archive", ("good.txt", b"good"), (name.format(parent=place.parent), b"overwritten"))
    with pytest.raises(OLMoDataError, match="x.archive is not unpacked: its member '.*secret' would lie outside the folder"):
        run(path)
    assert (place.parent / "secret").read_text() == "untouched"
    assert list(tree(place)) == ["x.archive"]


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "videos/../../secret"])
def test_no_link_leads_out(place, target):
    for path in (
        tar(place / "soft.tar", special("link", tarfile.SYMTYPE, target)),
        tar(place / "hard.tar", special("link", tarfile.LNKTYPE, target)),
        linked_zip(place / "x.zip", "link", target),
    ):
        with pytest.raises(OLMoDataError, match=f"{path.name} is not unpacked: its link 'link' leads outside the folder"):
            run(path)
    assert not os.path.lexists(place / "link")


def test_nothing_is_written_through_a_link(place):
    """A link and then a file below it, and links that lead out only together. Seen to fail with links made in their turn."""
    path = tar(place / "a.tar", special("way", tarfile.SYMTYPE, "."), special("way/out", tarfile.SYMTYPE, ".."), ("way/out/secret", b"bad"))
    with pytest.raises((OLMoDataError, OLMoEnvironmentError)):
        run(path)
    path = tar(place / "b.tar", special("d/e/up", tarfile.SYMTYPE, ".."), special("d/f", tarfile.SYMTYPE, "e/up/../.."))
    with pytest.raises(OLMoDataError, match="leads outside"):
        run(path)
    assert (place.parent / "secret").read_text() == "untouched" and sorted(tree(place)) == ["a.tar", "b.tar"]


def test_links_inside_are_kept(place):
    run(
        tar(
            place / "x.tar",
            special("by_name/a.mp4", tarfile.SYMTYPE, "../videos/a.mp4"),
            *FILES,
            special("same.mp4", tarfile.LNKTYPE, "videos/a.mp4"),
        )
    )
    assert (place / "by_name/a.mp4").read_bytes() == (place / "same.mp4").read_bytes() == b"a" * 3000


def test_devices_are_refused(place):
    with pytest.raises(OLMoDataError, match="null in the archive is a device or a pipe"):
        run(tar(place / "x.tar", special("null", tarfile.CHRTYPE)))


def test_permissions_of_the_archive_are_ignored(place):
    info = tarfile.TarInfo("run")
    info.mode = 0o4777
    run(tar(place / "x.tar", info))
    assert not stat.S_IMODE((place / "run").stat().st_mode) & (stat.S_ISUID | stat.S_IXUSR)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_cut_archive(place, kind):
    """A sentence, and nothing half unpacked beside the archive."""
    files = [(f"{i}.bin", os.urandom(5000)) for i in range(20)]
    path = zipped(place / "x.zip", *files) if kind == "zip" else tar(place / "x.tar.gz", *files, mode="w:gz")
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(OLMoDataError, match=rf"x\.{kind} is broken \(.*\); delete it and fetch it again"):
        run(path)
    assert list(tree(place)) == [path.name]


@pytest.mark.parametrize(("kind", "place_of_byte"), [("zip", 40), ("tar.gz", -6)])
def test_a_flipped_byte(place, kind, place_of_byte):
    """The end of a gzip stream holds its checksum. Seen to fail with a tar that is read no further than its last member."""
    path = place / f"x.{kind}"
    zipped(path, ("a.bin", b"0" * 10_000)) if kind == "zip" else tar(path, ("a.bin", b"0" * 10_000), mode="w:gz")
    data = bytearray(path.read_bytes())
    data[place_of_byte] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(OLMoDataError, match=rf"x\.{kind} is broken"):
        run(path)
    assert list(tree(place)) == [path.name]


def test_an_encrypted_zip(place):
    path = zipped(place / "x.zip", ("a.bin", b"0" * 100))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(OLMoDataError, match=r"a\.bin in the archive is encrypted"):
        run(path)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"<!DOCTYPE html><title>Sign in</title>", "a web page"), (b"text", "no zip or tar archive")]
)
def test_what_is_no_archive(place, content, kind):
    (place / "x.zip").write_bytes(content)
    with pytest.raises(OLMoDataError, match=rf"x\.zip is {kind}; delete it and fetch it again"):
        run(place / "x.zip")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_pieces_are_joined(place, kind):
    """`split` cuts anywhere; the pieces are read as one file in the order of their names, and never joined on disk.

    A missing piece in the middle is noticed. Seen to fail as tarfile reads it: a damaged header ends the archive in silence.
    """
    files = [(f"videos/{i}.bin", os.urandom(5000)) for i in range(5)]
    whole = zipped(place / "v.zip", *files) if kind == "zip" else tar(place / f"v.{kind}", *files, mode=f"w:{kind[4:]}")
    data = whole.read_bytes()
    whole.unlink()
    pieces = []
    for number, suffix in enumerate(("aa", "ab", "ac", "ad")):
        pieces.append(place / f"v.{kind}.part.{suffix}")
        pieces[-1].write_bytes(data[number * 10_000 : (number + 1) * 10_000])
    assert run(*reversed(pieces)) == 5
    assert (place / "videos/4.bin").read_bytes() == files[4][1]
    pieces[1].unlink()
    with pytest.raises(OLMoDataError, match="is broken|is no zip or tar"):
        run(pieces[0], *pieces[2:])


def test_names_of_archives(tmp_path):
    names = {
        "a.zip": "a.zip",
        "a.TAR.gz": "a.TAR.gz",
        "v.tar.part.aa": "v.tar",
        "v.tar.gz.001": "v.tar.gz",
        "v.zip.partab": "v.zip",
        "v.tar.ab": "v.tar",
        "v.zip.part1": "v.zip",
        "v_part_aa": "v",
        "v_part_003.tar.gz": "v.tar.gz",
        "v_part_aa.tar.gz": "v.tar.gz",
        "v_part_1.zip": "v_part_1.zip",
        "v_part_1": None,
        "v.tar.txt": None,
        "v.zip.md5": None,
        "a.json": None,
        "a.mp4": None,
    }
    assert {name: whole_name(name) for name in names} == names
    files = [tmp_path / name for name in ("v.tar.ab", "b.zip", "v.tar.aa")]
    assert as_archives(files) == [Archive("b.zip", (files[1],)), Archive("v.tar", (files[2], files[0]))]


@pytest.mark.parametrize("name", ["v_part_a{}", "v_part_00{}.tar.gz"])
def test_pieces_that_are_named_like_whole_archives(place, name):
    """Some publishers cut an archive and name its pieces so. Seen to fail when each is opened for itself: the second is no archive."""
    whole = tar(place / "v.tar.gz", ("a.bin", os.urandom(5000)), ("b.bin", b"b"), mode="w:gz")
    data = whole.read_bytes()
    whole.unlink()
    pieces = [place / name.format("abc"[i] if name.endswith("{}") else i) for i in range(3)]
    for number, piece in enumerate(pieces):
        piece.write_bytes(data[number * 2000 : (number + 1) * 2000])
    assert run(*pieces) == 2 and (place / "b.bin").read_bytes() == b"b"
