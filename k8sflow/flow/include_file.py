"""``IncludeFile``: a file, or what is at a URL, as a value of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k8sflow.errors import K8sflowError, ParameterError
from k8sflow.flow import files
from k8sflow.flow.config_values import parse_failure, parser_of
from k8sflow.flow.delayed import is_delayed
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import declaring


class IncludeFile(Parameter):
    """A file whose content is a value of the run: ``--name FILE``, read when the run starts.

    FILE may be a URL: ``s3://bucket/key``, ``https://…`` or ``http://…``.

    Args:
        name: The name on the command line.
        required: Whether a run without a file is an error.
        is_text: Whether the content is a text, and not bytes.
        encoding: The text's encoding.
        help: One line for ``--help``.
        default: The file or URL where none is given (a file is beside the flow, if it is not in the working folder), or
            a function of a ``ParameterContext`` that names one.
        parser: Makes the value from the content: a function, ``"module.function"``, or json, yaml or toml.
    """

    @declaring
    def __init__(
        self,
        name: str,
        required: bool = False,  # noqa: FBT001, FBT002  the order that users know
        is_text: bool = True,  # noqa: FBT001, FBT002  the order that users know
        encoding: str = "utf-8",
        help: str = "",  # noqa: A002  the name that users know
        default: Any = None,
        parser: str | Callable[[Any], Any] | None = None,
        *,
        show_default: bool = True,
    ) -> None:
        self._is_text, self._encoding, self._parser = is_text, encoding, parser
        self._owner: type | None = None
        made = default if default is None or callable(default) or is_delayed(default) else lambda _: default
        super().__init__(name, default=made, type=str, help=help, required=required, show_default=show_default)

    def __set_name__(self, owner: type, name: str) -> None:
        """Keeps also whose file it is beside."""
        if not self._is_placed:
            self._owner = owner
        super().__set_name__(owner, name)

    @property
    def type_name(self) -> str:
        """The word for its value in ``--help``."""
        return "file"

    def convert(self, value: object, source: str) -> Any:
        """The content of a file.

        Raises:
            ParameterError: It can't be read, or the parser can't make anything of it.
        """
        try:
            data = files.content(files.found(self._owner, str(value)))
            content: Any = data.decode(self._encoding) if self._is_text else data
        except (OSError, ValueError, LookupError, K8sflowError) as error:
            is_of_file = isinstance(error, OSError | K8sflowError)
            advice = f"Give --{self.name} FILE." if is_of_file else "Is its encoding right?"
            raise files.unreadable(f"IncludeFile {self.name!r}: {source} {str(value)!r}", error, advice) from error
        if self._parser is None:
            return content
        try:
            return parser_of(self._parser, f"IncludeFile({self.name!r})")(content)
        except ParameterError:
            raise
        except Exception as error:  # a parser is anyone's code, and may raise anything
            raise ParameterError(
                f"IncludeFile {self.name!r}: {str(value)!r} can't be parsed: {parse_failure(error)}"
            ) from error
