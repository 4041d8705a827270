"""Optional packages: import one, or say what to install."""

from importlib import import_module
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Its import name, such as "ray" or "openvino".
        extra: The extra of hfasr that installs it.

    Raises:
        ModuleNotFoundError: It is not installed; the message has the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # installed, but something it needs is missing
        raise ModuleNotFoundError(
            f"this needs the package {error.name!r}, which is not installed; run: pip install 'hfasr[{extra}]'", name=error.name
        ) from None
