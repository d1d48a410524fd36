"""Which licence a source file is under: its SPDX line, or the licence text that lies above it in the tree."""

import re
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 4096
TEXT_BYTES = 1 << 16
NAMES = ("LICENSE", "LICENCE", "COPYING", "UNLICENSE")  # with any ending: LICENSE.txt, LICENSE-MIT, COPYING.LESSER

_SPDX = re.compile(rb"SPDX-License-Identifier:[ \t]*([\w.+()\- \t]{2,200})")
_OLD_IDS = {
    **{
        f"{name}-{version}": f"{name}-{version}-only"
        for name in ("GPL", "LGPL", "AGPL")
        for version in ("2.0", "2.1", "3.0")
    },
    **{
        f"{name}-{version}+": f"{name}-{version}-or-later"
        for name in ("GPL", "LGPL", "AGPL")
        for version in ("2.0", "2.1", "3.0")
    },
}
# Sentences that only this licence has, in the order in which they must be asked for: LGPL and AGPL name the GPL, BSD-3
# holds BSD-2. "Or later" is said in the files, not in the text: a text alone counts as this version only.
_SENTENCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Apache-2.0", ("apache license", "version 2.0, january 2004")),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3, 19 november 2007")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("LGPL-2.1-only", ("gnu lesser general public license", "version 2.1, february 1999")),
    ("GPL-3.0-only", ("gnu general public license", "version 3, 29 june 2007")),
    ("GPL-2.0-only", ("gnu general public license", "version 2, june 1991")),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose with or without fee",)),
    ("Zlib", ("this software is provided 'as-is', without any express or implied", "altered source versions")),
    ("BSD-4-Clause", ("redistribution and use in source and binary forms", "all advertising materials mentioning")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("MIT", ("permission is hereby granted, free of charge", "the above copyright notice and this permission notice")),
)


@dataclass(frozen=True)
class Found:
    """Licences a work is offered under, any of which may be chosen, and where that is said."""

    ids: tuple[str, ...]
    where: str


def of_head(content: bytes) -> Found | None:
    """What the SPDX line in the head of a file says; None without one.

    Of `A OR B` both are offered; `A AND B` is one licence of its own, which no table lists.
    """
    found = _SPDX.search(content[:HEAD_BYTES])
    if found is None:
        return None
    expression = " ".join(found[1].decode("ascii", "replace").replace("(", " ").replace(")", " ").split())
    choices = re.split(r"\s+OR\s+", expression.removesuffix(" */").strip(), flags=re.IGNORECASE)
    return Found(tuple(_OLD_IDS.get(choice, choice) for choice in choices if choice), "SPDX line")


def of_directory(folder: Path, root: Path) -> Found | None:
    """What the licence files in the nearest directory that has any say, from `folder` up to `root`.

    Several known texts (LICENSE-MIT, LICENSE-APACHE) are a choice. A text that is not known makes the answer None, not
    the answer of the directory above: it was put there to differ.
    """
    for place in (folder, *folder.parents):
        if root not in (place, *place.parents):
            break
        texts = sorted(path for path in place.iterdir() if path.is_file() and _is_licence(path.name))
        if texts:
            ids = tuple(dict.fromkeys(known for path in texts if (known := of_text(_read(path)))))
            return Found(ids, ", ".join(path.name for path in texts)) if ids else None
    return None


def of_text(text: str) -> str:
    """The licence a text is; blank when it is none of those known here."""
    words = " ".join(text.replace("*", " ").replace("#", " ").split()).lower()
    return next((name for name, sentences in _SENTENCES if all(sentence in words for sentence in sentences)), "")


def _is_licence(name: str) -> bool:
    return name.upper().startswith(NAMES)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(TEXT_BYTES).decode("utf-8", "replace")
