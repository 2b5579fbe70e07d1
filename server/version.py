"""The version of the installed distribution, or of this tree where none is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("sapwood")
except PackageNotFoundError:
    VERSION = "0+source"
