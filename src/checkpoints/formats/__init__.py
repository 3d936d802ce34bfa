"""Readable checkpoint formats, recognised by content. A new one is a module with a `Format` and a line here."""

from .ast import FORMAT as ORIGINAL_AST
from .base import Format
from .huggingface import FORMAT as HUGGING_FACE
from .own import FORMAT as OWN
from .released_flexiast import FORMAT as RELEASED_FLEXIAST
from .timm import FORMAT as TIMM

FORMATS: list[Format] = [OWN, HUGGING_FACE, RELEASED_FLEXIAST, ORIGINAL_AST, TIMM]
