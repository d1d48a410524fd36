"""Optional packages: imported where they are used, with an error that says how to install them."""

from importlib import import_module
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Raises:
        ModuleNotFoundError: the package is absent (the message gives the install command), or present but broken.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # the package is there but broken: hide nothing
        raise ModuleNotFoundError(
            f"This stage needs {module}, which the [{extra}] extra brings. Install it with: pip install -e '.[{extra}]'",
            name=module,
        ) from error
