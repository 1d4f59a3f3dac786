"""Split a docstring into a query, its summary line, and a document, the prose of the rest.

What is not prose is dropped: signatures, code, doctests, rules, tables, directives and markup.
"""

import re
from collections.abc import Iterator, Sequence

BODY_CHARS, SUMMARY_WORDS, BODY_WORDS = 600, (4, 30), 8

_SIGNATURE = re.compile(r"[\w.]+\(")
_RULE = re.compile(r"[\W_]{3,}")
_LITERAL = re.compile(r"\.\. (?!note|warning|tip|important)|.*::$")
_EXAMPLES = re.compile(
    r"((code )?examples?|references?|see also|doctests?)( usage)?:*$", re.IGNORECASE
)
_HEADING = re.compile(r"[A-Z]\w+( \w+)?:|:\w+[^:`]*:(\s.*)?")  # `Returns:`, `:param x: the ...`
_SENTENCE = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!\bvs)(?<!etc)(?<!\bcf)[.!?](?=\s+[^a-z\s]|$)")
_MARKUP = (
    (re.compile(r"^\s*(?:\.\. \w+::|:(?=\w+[^:`]*: )|(?:[-*+•]|\d+[.)])\s)", re.MULTILINE), ""),
    # In this order: [`~package.name`], :func:`~package.name`, :func:`text <target>`, :func:`name`.
    (re.compile(r"\[`~?(?:\w+\.)*([^\]`]*)`\]"), r"\1"),
    (re.compile(r"(?<!`)(?::[\w:+-]+:)?`[~.](?:\w+\.)*(\w[^`<\s]*)`"), r"\1"),
    (re.compile(r"(?::[\w:+-]+:)?`([^`<]+?)\s*<[^`>]+>`_{0,2}"), r"\1"),
    (re.compile(r":[\w:+-]+:`!?([^`]*)`"), r"\1"),
    (re.compile(r"\[([^\]]+)\]\([^)\s]+\)"), r"\1"),  # [text](link)
    (re.compile(r"\(\s*(?:\[\w+\]_,?\s*)+\)|\[\w+\]_"), ""),  # the footnote [1]_
    (re.compile(r"<?https?://[^\s>)]+>?|</?[A-Za-z][^<>]{0,40}>|%\(\w+\)s"), ""),
    (re.compile(r"(?<![\w*])(\*\*?)(?=\w)([^*\n]*\w[.:]?)\1(?![\w*])"), r"\2"),  # **bold**
    (re.compile(r"\|(\w+)\|"), r"\1"),
    (re.compile(r"`+(?:_{1,2}(?!\w))?|\\(?:(?=[*_`|\\])| )|Read more in the User Guide\."), ""),
    (re.compile(r"::(?=\s|$)"), ":"),
    (re.compile(r"\s+"), " "),
    (re.compile(r" (?=[.,;)](?:\s|$))"), ""),
)


def pair(docstring: str) -> tuple[str, str] | None:
    """The summary and the body of a docstring, or None where they make no query and document."""
    prose = "\n".join(_prose(_without_signature(docstring).splitlines())).strip()
    first, _, rest = prose.partition("\n\n")
    first = _plain(first)
    end = match.end() if (match := _SENTENCE.search(first)) else len(first)
    summary, body = first[:end].strip(), _cut(f"{first[end:]} {_plain(rest)}".strip())
    query, document = normalised(summary), normalised(body)
    least, most = SUMMARY_WORDS
    fits = least <= len(query.split()) <= most and len(document.split()) >= BODY_WORDS
    english = summary[:1].isalpha() and _letters(summary) > 0.85 and _letters(body) > 0.75
    headed = _HEADING.fullmatch(prose.partition("\n")[0]) or summary.endswith(":")
    separate = query not in document and not headed and "TODO" not in summary
    return (summary, body) if fits and english and separate else None


def normalised(text: str) -> str:
    """Lower-case alphanumeric words, padded so that `in` compares whole words.

    >>> normalised("Top-1 accuracy!")
    ' top 1 accuracy '
    """
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def _without_signature(docstring: str) -> str:
    """Drop the calls `name(x, /, ...) -> y` with which docstrings written in C begin."""
    while _SIGNATURE.match(docstring):
        depth = end = 0
        while end < len(docstring) and not (docstring[end] == "\n" and depth <= 0):
            depth += {"(": 1, ")": -1}.get(docstring[end], 0)
            end += 1
        docstring = docstring[end:].lstrip()
    return docstring


def _prose(lines: Sequence[str]) -> Iterator[str]:
    """The lines that are neither code, nor examples, nor rules, nor tables, nor directives."""
    block: int | None = None  # lines indented deeper than this belong to a block to drop
    fenced = doctest = examples = False
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        titled = bool(text and _RULE.fullmatch(following.strip()))
        if text.startswith("```"):
            fenced = not fenced
        elif fenced or (block is not None and text and indent > block):
            continue
        elif not text:
            doctest = False
            yield ""
        else:
            aside, literal = _EXAMPLES.match(text), _LITERAL.match(text)
            block = indent if aside or literal else None
            doctest = doctest or text.startswith((">>>", "In ["))
            examples = bool(aside) if titled else examples
            code = text.startswith(("|", "+-")) or (literal and text.startswith(".. "))
            if not (doctest or examples or aside or code or _RULE.fullmatch(text)):
                yield from ("", text) if titled or _HEADING.fullmatch(text) else (text,)


def _plain(text: str) -> str:
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()


def _cut(text: str) -> str:
    return text if len(text) <= BODY_CHARS else text[: BODY_CHARS + 1].rpartition(" ")[0]


def _letters(text: str) -> float:
    """The share of ASCII letters and spaces: low in formulas, tables and other scripts."""
    return len(re.findall(r"[A-Za-z ]", text)) / max(len(text), 1)
