"""Session ids: what a person would type, in any script, and nothing that could disguise itself."""

import unicodedata

from orchestrator.domain.errors import InvalidRequestError

MAX_SESSION_ID_CHARACTERS = 128

# Joiners that Persian, Indic scripts and emoji need; every other format character can reorder or hide text.
_JOINERS = frozenset("\u200c\u200d")
_REFUSED_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "an invisible format character",
    "Cs": "a lone surrogate",
    "Co": "a private-use character",
    "Cn": "an unassigned character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def session_id_of(text: str) -> str:
    """The session id that `text` names, in Unicode's normal form C, so that one spelling is one session.

    Raises InvalidRequestError, naming the first thing that is wrong.
    """
    if not text:
        raise InvalidRequestError("The session id is empty.", hint="Give 1 to 128 characters, such as 'analysis-1'.")
    _refuse_long(text)  # before normalising, whose cost grows with the text
    if text != text.strip():
        raise InvalidRequestError("The session id begins or ends with white space.", hint="Leave it out.")
    for position, character in enumerate(text, start=1):
        wrong = _REFUSED_CATEGORIES.get(unicodedata.category(character))
        if wrong and character not in _JOINERS:
            raise InvalidRequestError(
                f"The session id has {wrong} (U+{ord(character):04X}) at position {position}.",
                hint="Use letters, digits, punctuation and spaces of any script.",
            )
    normal = unicodedata.normalize("NFC", text)
    _refuse_long(normal)  # a few characters become two or three, and what we give out must be taken back
    return normal


def _refuse_long(text: str) -> None:
    if len(text) > MAX_SESSION_ID_CHARACTERS:
        raise InvalidRequestError(
            f"The session id has {len(text)} characters; at most {MAX_SESSION_ID_CHARACTERS} are allowed.",
            hint="Choose a shorter id.",
        )
