"""Pages that the presets read: the documentation of Debian in two languages, and Python's standard library."""

from tasks.ingest.config import MirrorConfig, SourceConfig


def _debian(name: str, licence: str, language: str, *packages: str, include: tuple[str, ...] = ()) -> SourceConfig:
    return SourceConfig(
        kind="debian",
        name=name,
        licence=licence,
        attribution=f"Debian packages {' '.join(packages)}; authors in their copyright files",
        language_hint=language,
        packages=packages,
        include=include,
    )


JA_PAGES = MirrorConfig(
    sources=(
        _debian(
            "debian-manuals-ja",
            "GPL-2.0-or-later",
            "ja",
            "debian-reference-ja",
            "developers-reference-ja",
            "maint-guide-ja",
            "aptitude-doc-ja",
            "debian-policy-ja",
        ),
        _debian("harden-doc-ja", "GPL-2.0-or-later", "ja", "harden-doc", include=("*/ja-JP/*",)),
        _debian("debian-faq-ja", "LicenseRef-Debian-FAQ", "ja", "debian-faq-ja"),
        _debian("libreoffice-help-ja", "MPL-2.0", "ja", "libreoffice-help-ja"),
        _debian("installation-guide-ja", "GPL-2.0-or-later", "ja", "installation-guide-amd64", include=("*/ja/*",)),
        _debian("live-manual-ja", "GPL-3.0-or-later", "ja", "live-manual-html", include=("*.ja.html",)),
    )
)
EN_PAGES = MirrorConfig(
    sources=(
        _debian(
            "debian-manuals-en",
            "GPL-2.0-or-later",
            "en",
            "debian-reference-en",
            "developers-reference",
            "debian-policy",
            "maint-guide",
            "aptitude-doc-en",
        ),
        _debian("debian-faq-en", "LicenseRef-Debian-FAQ", "en", "debian-faq"),
        _debian("libreoffice-help-en", "MPL-2.0", "en", "libreoffice-help-en-us"),
        _debian("installation-guide-en", "GPL-2.0-or-later", "en", "installation-guide-amd64", include=("*/en/*",)),
        _debian("harden-doc-en", "GPL-2.0-or-later", "en", "harden-doc", include=("*/en-US/*",)),
        _debian("live-manual-en", "GPL-3.0-or-later", "en", "live-manual-html", include=("*.en.html",)),
    )
)
PYTHON_PAGES = MirrorConfig(
    sources=(
        SourceConfig(
            kind="python_source",
            name="python-stdlib",
            licence="PSF-2.0",
            attribution="Python Software Foundation; the standard library of CPython",
            language_hint="python",
        ),
    )
)
