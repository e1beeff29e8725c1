"""Fetches Multi30k task 1 (English, German, French captions) into data/multi30k/.

    python scripts/corpora/fetch_multi30k.py
    python scripts/corpora/fetch_multi30k.py --from path/to/dataset      # a clone of the corpus's repository

Elliott et al. 2016 (arXiv:1605.00459), Elliott et al. 2017 (arXiv:1710.07177), Barrault et al. 2018. Home:
https://github.com/multi30k/dataset. For research and education, non-commercial.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import download
from atomic_files import all_or_none

HOME = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
_MAX_BYTES = 16 << 20
SHA256 = {
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
    "test_2017_flickr.en.gz": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_flickr.de.gz": "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
    "test_2017_flickr.fr.gz": "3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496",
    "test_2017_mscoco.en.gz": "aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58",
    "test_2017_mscoco.de.gz": "799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338",
    "test_2017_mscoco.fr.gz": "754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0",
}


def build(output: Path, *, home: str, clone: Path | None, languages: list[str]) -> None:
    """Writes the files of the given languages, downloaded or copied from a clone."""
    for name, sha256 in SHA256.items():
        if name.split(".")[1] not in languages:
            continue
        target = output / name
        if clone is not None and not target.exists():
            _copy(clone, name, target)
        elif download.fetch(download.Remote(f"{home}/{name}", sha256, _MAX_BYTES), target):
            download.note(f"{target}: written")
        else:
            download.note(f"{target}: already exists")


def _copy(clone: Path, name: str, target: Path) -> None:
    nested = clone / "data" / "task1" / "raw" / name
    source = nested if nested.exists() else clone / name
    if not source.exists() and name.startswith("test_2017"):
        download.note(f"warning: {source}: not found; continuing without this additional test set")
        return
    download.check_official(source, SHA256[name])
    with all_or_none([target]) as (temporary,):
        shutil.copyfile(source, temporary)
    download.note(f"{target}: written")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the Multi30k corpus.")
    parser.add_argument("--output", type=Path, default=Path("data/multi30k"))
    parser.add_argument("--from", dest="clone", type=Path, help="folder with the files of the corpus, or a clone of it")
    parser.add_argument("--base-url", default=HOME, help="another URL of a folder with the same files")
    parser.add_argument("--languages", default="en,de,fr", help="comma-separated (default: en,de,fr)")
    options = parser.parse_args(arguments)
    languages = options.languages.split(",")
    if unknown := set(languages) - {"en", "de", "fr"}:
        parser.error(f"--languages: {', '.join(sorted(unknown))}: choose from en, de and fr")
    home = options.base_url.rstrip("/")
    return download.run(lambda: build(options.output, home=home, clone=options.clone, languages=languages))


if __name__ == "__main__":
    sys.exit(main())
