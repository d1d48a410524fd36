"""One table of licences: what each asks of whoever publishes something made from such works.

Every source, teacher and base model names an id of `LICENCES`. An artifact's licence set is the union over its
ancestors, and `check_release` is the gate: it refuses a release that lacks a name part, a file or a line that one of
these licences requires. The table states what the texts say; it is not legal advice. Whether a model's weights are a
derivative of the documents it learned from is not settled, so the duties of *all* ancestors are met.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from tasks.errors import ConfigError

TEXTS = Path(__file__).parent / "licence_texts"


@dataclass(frozen=True, kw_only=True)
class Licence:
    """What a licence is called and what it asks for. An empty field asks for nothing."""

    name: str
    url: str
    hub_id: str  # what the front matter of a Hugging Face model card calls it
    attribution: bool = True  # name the authors
    share_alike: bool = False  # adapted *texts* must stay under the same terms
    source_notice: bool = False  # the copyright notice of each work must be shipped
    notice_lines: tuple[str, ...] = ()  # verbatim lines of the NOTICE file
    built_with: str = ""  # a sentence shown in the model card
    name_part: str = ""  # a word the model's name must hold
    text: str = ""  # the licence's own text, in licence_texts/
    text_patterns: tuple[str, ...] = ()  # file names, one of which must be shipped (any letter case)
    conditions: tuple[str, ...] = ()  # further duties, as sentences for the model card


def _llama(version: str) -> Licence:
    return Licence(
        name=f"Llama {version} Community License",
        url=f"https://www.llama.com/llama{version.replace('.', '_')}/license/",
        hub_id=f"llama{version}",
        notice_lines=(
            f"Llama {version} is licensed under the Llama {version} Community License, "
            "Copyright © Meta Platforms, Inc. All Rights Reserved.",
        ),
        built_with="Built with Llama.",
        name_part="Llama",
        text_patterns=("license-llama*", "llama*license*", f"llama{version}*"),
        conditions=(
            'The licence asks for "Llama" at the beginning of the name of a model made with Llama or its outputs.',
            "Use must follow the Llama Acceptable Use Policy.",
            "Services with more than 700 million monthly users need a licence of their own from Meta.",
        ),
    )


_COPYLEFT = ("Texts adapted from these works must be passed on under the same licence.",)
_GPL = (*_COPYLEFT, "Whoever passes the documents on must also offer their source form.")

# The sources of these facts are the licences' own texts; ids follow SPDX where SPDX has one.
LICENCES: dict[str, Licence] = {
    "Apache-2.0": Licence(
        name="Apache License 2.0",
        url="https://www.apache.org/licenses/LICENSE-2.0",
        hub_id="apache-2.0",
        text="Apache-2.0.txt",
        conditions=("Changed files must say that they were changed.",),
    ),
    "MIT": Licence(name="MIT License", url="https://opensource.org/license/mit", hub_id="mit", source_notice=True),
    "BSD-2-Clause": Licence(
        name="BSD 2-Clause License",
        url="https://opensource.org/license/bsd-2-clause",
        hub_id="bsd-2-clause",
        source_notice=True,
    ),
    "BSD-3-Clause": Licence(
        name="BSD 3-Clause License",
        url="https://opensource.org/license/bsd-3-clause",
        hub_id="bsd-3-clause",
        source_notice=True,
        conditions=("The authors' names must not be used to promote what was made from their work.",),
    ),
    "ISC": Licence(
        name="ISC License", url="https://opensource.org/license/isc-license-txt", hub_id="isc", source_notice=True
    ),
    "Zlib": Licence(name="zlib License", url="https://opensource.org/license/zlib", hub_id="zlib", source_notice=True),
    "PSF-2.0": Licence(
        name="Python Software Foundation License 2",
        url="https://docs.python.org/3/license.html",
        hub_id="other",
        text="PSF-2.0.txt",
        conditions=("A derivative must include a brief summary of the changes made to Python.",),
    ),
    "MPL-2.0": Licence(
        name="Mozilla Public License 2.0",
        url="https://www.mozilla.org/MPL/2.0/",
        hub_id="mpl-2.0",
        share_alike=True,
        text="MPL-2.0.txt",
        conditions=_COPYLEFT,
    ),
    "GPL-2.0-only": Licence(
        name="GNU General Public License 2",
        url="https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
        hub_id="gpl-2.0",
        share_alike=True,
        source_notice=True,
        text="GPL-2.0.txt",
        conditions=_GPL,
    ),
    "GPL-2.0-or-later": Licence(
        name="GNU General Public License 2 or later",
        url="https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
        hub_id="gpl-2.0",
        share_alike=True,
        source_notice=True,
        text="GPL-2.0.txt",
        conditions=_GPL,
    ),
    "GPL-3.0-or-later": Licence(
        name="GNU General Public License 3 or later",
        url="https://www.gnu.org/licenses/gpl-3.0.html",
        hub_id="gpl-3.0",
        share_alike=True,
        source_notice=True,
        text="GPL-3.0.txt",
        conditions=_GPL,
    ),
    "LGPL-2.1-or-later": Licence(
        name="GNU Lesser General Public License 2.1 or later",
        url="https://www.gnu.org/licenses/old-licenses/lgpl-2.1.html",
        hub_id="lgpl-2.1",
        share_alike=True,
        source_notice=True,
        text="LGPL-2.1.txt",
        conditions=_GPL,
    ),
    "LicenseRef-Debian-FAQ": Licence(
        name="Debian FAQ notice (verbatim copies, and changed ones under the same notice)",
        url="https://www.debian.org/doc/manuals/debian-faq/",
        hub_id="other",
        share_alike=True,
        source_notice=True,
        conditions=_COPYLEFT,
    ),
    "CC-BY-3.0": Licence(
        name="Creative Commons Attribution 3.0", url="https://creativecommons.org/licenses/by/3.0/", hub_id="cc-by-3.0"
    ),
    "CC-BY-4.0": Licence(
        name="Creative Commons Attribution 4.0", url="https://creativecommons.org/licenses/by/4.0/", hub_id="cc-by-4.0"
    ),
    "CC-BY-SA-3.0": Licence(
        name="Creative Commons Attribution-ShareAlike 3.0",
        url="https://creativecommons.org/licenses/by-sa/3.0/",
        hub_id="cc-by-sa-3.0",
        share_alike=True,
        conditions=_COPYLEFT,
    ),
    "CC-BY-SA-4.0": Licence(
        name="Creative Commons Attribution-ShareAlike 4.0",
        url="https://creativecommons.org/licenses/by-sa/4.0/",
        hub_id="cc-by-sa-4.0",
        share_alike=True,
        conditions=_COPYLEFT,
    ),
    "CC0-1.0": Licence(
        name="Creative Commons Zero 1.0",
        url="https://creativecommons.org/publicdomain/zero/1.0/",
        hub_id="cc0-1.0",
        attribution=False,
    ),
    "public-domain": Licence(
        name="Public domain",
        url="https://creativecommons.org/public-domain/pdm/",
        hub_id="other",
        attribution=False,
    ),
    "LicenseRef-own": Licence(
        name="Own work (the publisher holds the rights)", url="", hub_id="other", attribution=False
    ),
    "gemma": Licence(
        name="Gemma Terms of Use",
        url="https://ai.google.dev/gemma/terms",
        hub_id="gemma",
        notice_lines=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        ),
        built_with="Built with Gemma.",
        text_patterns=("gemma_terms*", "gemma-terms*", "license-gemma*"),
        conditions=(
            "A model trained from Gemma, or on text that Gemma wrote so as to imitate it, is a Model Derivative: the "
            "use restrictions of section 3.2 and the Gemma Prohibited Use Policy "
            "(https://ai.google.dev/gemma/prohibited_use_policy) bind everyone who receives it, and any agreement it "
            "is passed on under must say so.",
            "Modified files must carry a prominent notice that they were modified.",
        ),
    ),
    "llama3.1": _llama("3.1"),
    "llama3.3": _llama("3.3"),
}


def licence(licence_id: str) -> Licence:
    """The row of the table.

    Raises:
        ConfigError: an id that is not in the table, with the nearest ones.
    """
    found = LICENCES.get(licence_id)
    if found is None:
        near = get_close_matches(licence_id, LICENCES, n=3, cutoff=0.4)
        raise ConfigError(
            f"licence {licence_id!r} is not in LICENCES of tasks/licences.py"
            f"{' (near: ' + ', '.join(near) + ')' if near else ''}: an artifact's duties are computed from that table, "
            "and a licence it does not know could be broken unseen. Use one of its ids, or add a row with what it asks."
        )
    return found


def union(*licence_sets: Iterable[str]) -> tuple[str, ...]:
    """The ids of all sets, each once, sorted; every id is checked against the table."""
    ids = sorted({licence_id for ids in licence_sets for licence_id in ids})
    for licence_id in ids:
        licence(licence_id)
    return tuple(ids)


@dataclass(frozen=True)
class Duties:
    """What a set of licences asks of a release, each thing once."""

    licences: tuple[str, ...]
    name_parts: tuple[str, ...]
    notice_lines: tuple[str, ...]
    built_with: tuple[str, ...]
    texts: tuple[str, ...]  # files of licence_texts/ to ship
    text_patterns: tuple[
        tuple[str, tuple[str, ...]], ...
    ]  # (licence id, names) of texts that must come from the lineage
    source_notices: tuple[str, ...]  # ids of licences whose works' copyright notices must be shipped


def duties(licences: Iterable[str]) -> Duties:
    """The duties of a set of licence ids."""
    ids = union(licences)
    rows = [(licence_id, licence(licence_id)) for licence_id in ids]
    return Duties(
        licences=ids,
        name_parts=_each_once(row.name_part for _, row in rows),
        notice_lines=_each_once(line for _, row in rows for line in row.notice_lines),
        built_with=_each_once(row.built_with for _, row in rows),
        texts=_each_once(row.text for _, row in rows),
        text_patterns=tuple((licence_id, row.text_patterns) for licence_id, row in rows if row.text_patterns),
        source_notices=tuple(licence_id for licence_id, row in rows if row.source_notice),
    )


def required_name_parts(licences: Iterable[str]) -> tuple[str, ...]:
    """The words a model's name must hold ("Llama" as soon as any Llama output was used)."""
    return duties(licences).name_parts


def missing(name: str, licences: Iterable[str], files: Mapping[str, str]) -> list[str]:
    """Everything a release lacks, one sentence each; empty when it may go out.

    Args:
        name: the model's name.
        licences: the union over its ancestors.
        files: path -> text of what would be published (binary files with any text).
    """
    wanted = duties(licences)
    names = {PurePosixPath(path).name.lower() for path in files}
    notice = files.get("NOTICE", "")
    card = files.get("README.md", "")
    found = [
        f'the name {name!r} lacks "{part}", which must be in the name of a model made with {_who(wanted, part)}'
        for part in wanted.name_parts
        if part not in name
    ]
    found += [
        f"LICENSES/{text} is not among the files: a copy of that licence must go with the model"
        for text in wanted.texts
        if f"LICENSES/{text}" not in files
    ]
    found += [
        f"no file named like {' or '.join(patterns)}: a copy of the {licence(licence_id).name} must go with the model"
        for licence_id, patterns in wanted.text_patterns
        if not any(fnmatch(file, pattern) for file in names for pattern in patterns)
    ]
    found += [f"NOTICE lacks the line: {line}" for line in wanted.notice_lines if line not in notice]
    found += [f"README.md lacks the sentence: {line}" for line in wanted.built_with if line not in card]
    if wanted.source_notices and not any(path.startswith("NOTICES/") for path in files):
        found.append(
            f"no copyright notice under NOTICES/: {', '.join(wanted.source_notices)} ask for the notice of each work"
        )
    return found


def check_release(name: str, licences: Iterable[str], files: Mapping[str, str]) -> None:
    """Let a release pass, or say everything it lacks at once.

    Raises:
        ConfigError: a licence in the lineage asks for something that is not there, or is unknown.
    """
    ids = union(licences)
    lacks = missing(name, ids, files)
    if lacks:
        raise ConfigError(
            f"release of {name!r} (licences of its ancestors: {', '.join(ids)}) is refused:\n"
            + "\n".join(f"  - {item}" for item in lacks)
            + "\nA release must meet the licences of every source, teacher and base model it was made from "
            "(design section 3). Change model_name, add the missing texts with licence_files, let the stage that "
            "brought the source capture its notice, or leave that source out."
        )


def text_of(name: str) -> bytes:
    """The bytes of a licence text that ships with Nestling (a name from `Duties.texts`)."""
    return (TEXTS / name).read_bytes()


def _who(wanted: Duties, part: str) -> str:
    return ", ".join(licence(item).name for item in wanted.licences if licence(item).name_part == part)


def _each_once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
