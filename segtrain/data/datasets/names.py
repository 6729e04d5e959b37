"""The part of a split that a config chooses by the names of its samples."""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from segtrain.data.io.storage import read_bytes
from segtrain.errors import ConfigError, DataError

_MAX_LISTED = 6


class Names:
    """The names of the samples that a split keeps.

    Args:
        given: The names, or a UTF-8 text file with one name per line. Whole numbers are names too.
        root: The directory or archive that a relative file starts from.
        where: The config key of the names, for messages.

    Attributes:
        chosen: The names.

    Raises:
        ConfigError: When a name is neither a text nor a whole number.
        DataError: When the file cannot be read, or there is no name.

    Example:
        >>> sorted(Names([21, "22", 21], Path(), "dataset.train.names").chosen)
        ['21', '22']
    """

    def __init__(self, given: str | Sequence[Any], root: Path, where: str) -> None:
        self.where = where
        self._given = _read(root, given, where) if isinstance(given, str) else list(given)
        for name in self._given:
            if not isinstance(name, (str, int)) or isinstance(name, bool):
                raise ConfigError(
                    f"{where}: {name!r} is neither a text nor a whole number; put quotes around it"
                )
        if not self._given:
            raise DataError(f"{where} names no sample; give a name, or leave it out")
        self._given = [  # as the names of files are compared
            name if isinstance(name, int) else unicodedata.normalize("NFC", name)
            for name in self._given
        ]
        self.chosen = frozenset(map(str, self._given))

    @property
    def digest(self) -> str:
        """A text that other names do not have."""
        texts = "\0".join(sorted(self.chosen))
        return hashlib.sha256(texts.encode(errors="surrogatepass")).hexdigest()

    def check(self, known: Collection[str]) -> None:
        """Check that every name is that of a sample.

        Args:
            known: The names of all samples.

        Raises:
            DataError: When one is not, with the closest match.
        """
        missing = [name for name in dict.fromkeys(self._given) if str(name) not in known]
        if not missing:
            return
        listed = sorted(known)
        more = ", ..." if len(listed) > _MAX_LISTED else ""
        raise DataError(
            f"{self.where}: no sample has the name {missing[0]!r}{_closest(missing[0], listed)}"
            f" ({len(missing)} of {len(self.chosen)} names do not exist; the samples are called"
            f" {', '.join(listed[:_MAX_LISTED])}{more})"
        )


def _read(root: Path, file: str, where: str) -> list[str]:
    path = root / Path(file).expanduser()
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where}: {path} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise DataError(
            f"{where}={file}: {path} cannot be read ({error.strerror or error}); give a list of"
            " names, or a text file with one name per line"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _closest(name: str | int, known: Sequence[str]) -> str:
    padded = [other for other in known if other.isdecimal() and other.lstrip("0") == str(name)]
    if isinstance(name, int) and padded:
        return f"; did you mean {padded[0]!r}? YAML drops leading zeros, so put it in quotes"
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
