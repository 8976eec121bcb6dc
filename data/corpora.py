"""Which text: the standard library, files of one's own, or a published corpus."""

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from data.documents import SUFFIXES
from data.download import Published, fetch
from data.splits import Splits, by_hash, first_documents, last_files
from records import BadInput

CORPORA = ("python", "local", "climbmix", "tinystories")

# The original's shards, https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle, some 92 MB each. The last one is its
# validation shard. Hashes of those that others have pinned and published; the hub announces those of the rest.
CLIMBMIX = "karpathy/climbmix-400b-shuffle"
CLIMBMIX_LAST = 6542
CLIMBMIX_SHA256 = {
    0: "054ddbd98abf30d773c54de578fc9d579bafeb6c14e04e97bd36aa90e825bf9b",
    1: "d4cfe1de19f4fd976022a9047458655968bc5583582ec5fa714801ec2be2c93c",
    2: "5e80d7596d53be648d841ea5811082747281c39f6851e10dd90375a84bc509a7",
    3: "b349c85d4b993d98e2328833ecfd3734692e0395a592d89858bae34a4ba73c59",
    6542: "769fe59d108dfd2cfa186c63173b83fbfb90a7adb3519519ba6eaa6ca9889f94",
}
TINYSTORIES = (
    "karpathy/tinystories-gpt4-clean"  # 2.7 million stories in one file of 673 MB, shuffled, without duplicates
)


class Corpus(NamedTuple):
    name: str
    files: list[Path]
    """All of it, in an order that does not depend on where they lie."""
    split: Callable[[Sequence[Path], int], Splits]
    """Told the files and the bytes of text to hold out for each of validation and test."""


def find_corpus(name: str, paths: Sequence[Path], shards: int, downloads: Path) -> Corpus:
    """The corpus' files; those of a published one are downloaded to `downloads` unless they are there.

    Args:
        name: one of CORPORA.
        paths: files and folders of `local`.
        shards: of climbmix, for training.
        downloads: folder for published corpora.

    Raises:
        BadInput: no such file, or nothing to be had under the address.
        MissingComponent: a download, and no network.
        HostFault: no space.
    """
    if paths and name != "local":
        raise BadInput(f"paths belong to --corpus local; {name} has its own")
    if name == "python":
        return Corpus(name, standard_library(), by_hash)
    if name == "local":
        return Corpus(name, local_files(paths), by_hash)
    if name == "tinystories":
        stories = [Published(TINYSTORIES, "tinystories_gpt4_clean.parquet")]
        return Corpus(name, fetch(stories, downloads / name), first_documents)
    if not 1 <= shards < CLIMBMIX_LAST:
        raise BadInput(f"--shards must be from 1 to {CLIMBMIX_LAST - 1}: the last two shards are held out")
    numbers = [*range(shards), CLIMBMIX_LAST - 1, CLIMBMIX_LAST]
    published = [Published(CLIMBMIX, f"shard_{n:05}.parquet", CLIMBMIX_SHA256.get(n)) for n in numbers]
    return Corpus(name, fetch(published, downloads / name), last_files)


def standard_library() -> list[Path]:
    """Python's own: works offline, anywhere."""
    # By prefix, not by absolute part: the interpreter itself may live below a folder of that name.
    root = Path(sysconfig.get_path("stdlib"))
    files = (path for path in root.rglob("*.py") if path.is_file())
    return sorted(f for f in files if not {"site-packages", "dist-packages"} & set(f.relative_to(root).parts))


def local_files(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise BadInput("--corpus local needs at least one PATH (a folder, or a file: " + " ".join(SUFFIXES) + ")")
    return [source for path in paths for source in _files_below(path)]


def _files_below(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    if path.suffix not in SUFFIXES:
        raise BadInput(f"{path}: unknown kind of file; known are {' '.join(SUFFIXES)}")
    return [path]
