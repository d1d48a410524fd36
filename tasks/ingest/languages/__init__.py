"""Languages as data. Another language is one file here and one line in LANGUAGES."""

from tasks.ingest.languages import en, ja, ko, python
from tasks.ingest.languages.pack import LanguagePack

LANGUAGES: dict[str, LanguagePack] = {pack.code: pack for pack in (ja.PACK, en.PACK, ko.PACK, python.PACK)}
