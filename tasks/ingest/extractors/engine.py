"""What an extraction engine is."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from tasks.errors import ConfigError


@dataclass(frozen=True)
class Engine:
    """One way from HTML to text. `extract` is pure: same page and selectors, same (text, title).

    It may raise, crash or never return: whoever runs it does so in a process that can be killed.
    """

    extract: Callable[[str, tuple[str, ...]], tuple[str, str]]  # (HTML, CSS selectors to leave out) -> (text, title)
    module: str  # the package that does the work
    extra: str = ""  # the extra of pyproject.toml that brings it; "" = always there

    def check(self) -> None:
        """See to it that the engine is there, before the first page is read.

        Raises:
            ConfigError: its package is not installed.
        """
        if importlib.util.find_spec(self.module) is None:
            raise ConfigError(
                f"this extractor needs the package {self.module}, which is not installed: the [{self.extra}] extra "
                f"brings it. Install it with: pip install -e '.[{self.extra}]', or choose the extractor 'resiliparse'."
            )
