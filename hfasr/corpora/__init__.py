"""A corpus on disk -> `datasets.DatasetDict` of rows; one file per format, one function per source."""

from hfasr.corpora.common_voice import common_voice
from hfasr.corpora.embedded import embedded

__all__ = ["common_voice", "embedded"]
