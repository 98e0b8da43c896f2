"""Markdown and HTML as sections: headings kept, tables with their heads, what no reader of a page sees left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from markdown_it import MarkdownIt
from markdown_it.token import Token
from selectolax.lexbor import LexborHTMLParser, LexborNode

from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.words import CJK

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---(?:\n|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LONGEST_HEADING = 120  # characters; what is longer is a paragraph that looks large
_UNSEEN = "script,style,template,noscript,nav,svg,iframe,object,[hidden],[aria-hidden=true]"
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0*\.?0*\s*(?:;|$)|font-size\s*:\s*0*\.?0*(?:px|pt|r?em|%)?\s*(?:;|$)",
    re.IGNORECASE,
)
_BLOCK_TAGS = (
    "address article aside blockquote body caption dd details div dl dt fieldset figcaption figure footer form h1 h2 "
    "h3 h4 h5 h6 header hr html legend li main ol option p pre section summary table tbody td tfoot th thead title "
    "tr ul"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())


@dataclass
class _Outline:
    """Sections in the making: text is put below the headings that are open."""

    sections: list[Section] = field(default_factory=list)
    open: list[tuple[int, str]] = field(default_factory=list)
    first: str = ""
    _is_bare: bool = False  # whether nothing stands under the last heading yet

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.open)

    def head(self, level: int, text: str, line: int | None = None) -> None:
        if len(text) > _LONGEST_HEADING:
            self.add(text, line=line)
        elif text:
            self._keep_bare(level)
            self.open = [*(outer for outer in self.open if outer[0] < level), (level, text)]
            self.first, self._is_bare = self.first or text, True

    def add(self, text: str, *, head: str = "", line: int | None = None) -> None:
        """Put a block below the open headings; it is joined to the text before it, unless one of them is a table."""
        last = self.sections[-1] if self.sections else None
        self._is_bare = False
        if last and not head and not last.head and last.headings == self.headings:
            self.sections[-1] = replace(last, text=f"{last.text}\n\n{text}")
        elif text or head:
            self.sections.append(Section(text, self.headings, head, line))

    def document(self, source: str, title: str) -> Document:
        """What has been put together."""
        self._keep_bare(0)
        return Document(source, title, tuple(self.sections))

    def _keep_bare(self, level: int) -> None:
        """Let a heading that nothing will stand under be text."""
        if self._is_bare and level <= self.open[-1][0]:
            self.sections.append(Section(self.open[-1][1], self.headings[:-1]))


def read_markdown(text: str, source: str, stem: str) -> Document:
    """Markdown by its blocks; HTML in it is read as HTML."""
    text = _FRONT_MATTER.sub(lambda match: "\n" * match[0].count("\n"), text.replace("\r\n", "\n"))
    lines, outline = text.split("\n"), _Outline()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for at, token in enumerate(tokens):
        if token.level or not token.map or token.type.endswith("_close"):
            continue
        begin, end = token.map
        block = "\n".join(lines[begin:end]).strip("\n")
        if token.type == "heading_open":
            outline.head(int(token.tag[1]), _plain(tokens[at + 1]), begin + 1)
        elif token.type == "table_open":
            rows = [line for line in lines[begin:end] if line.strip()]
            outline.add("\n".join(rows[2:]), head="\n".join(rows[:2]), line=begin + 1)
        elif token.type != "hr":
            shown = _seen(block) if _has_html(tokens, at) else block
            if shown.strip():
                outline.add(shown, line=begin + 1)
    return outline.document(source, outline.first or stem)


def _plain(inline: Token) -> str:
    """A heading without its marks."""
    kept = [child.content for child in inline.children or () if child.type in ("text", "code_inline", "softbreak")]
    return " ".join("".join(kept).split())


def _has_html(tokens: list[Token], at: int) -> bool:
    """Whether the block that begins at this token has HTML in it."""
    for token in tokens[at:]:
        if token.type == "html_block" or any(child.type == "html_inline" for child in token.children or ()):
            return True
        if token.level == 0 and (token.nesting == -1 or token.type in ("html_block", "fence", "code_block")):
            break
    return False


def _seen(markdown: str) -> str:
    """The block without comments and what its HTML hides; its lines stay."""
    page = LexborHTMLParser(f"<pre>\n{_COMMENT.sub('', markdown)}</pre>")
    _drop_unseen(page)
    return (page.text() if page.root else "").strip("\n")


def read_html(text: str, source: str, stem: str) -> Document:
    """A page by its headings, paragraphs and tables. Scripts, navigation and hidden text are not of it."""
    page = LexborHTMLParser(text)
    _drop_unseen(page)
    outline = _Outline()
    tables = {node.mem_id: node for node in page.css("table") if len(node.css("table")) == 1 and not node.css("h1,h2")}
    for block, words in _blocks(page, set(tables)):
        tag = block.tag or ""
        if block.mem_id in tables:
            head, *rows = [_row(row) for row in block.css("tr")] or [""]
            outline.add("\n".join(rows), head=head)
        elif re.fullmatch("h[1-6]", tag):
            outline.head(int(tag[1]), words)
        elif tag != "title" and words:
            outline.add(f"- {words}" if tag == "li" else words)
    title = page.css_first("title")
    return outline.document(source, (title and _tidy(title.text())) or outline.first or stem)


def _drop_unseen(page: LexborHTMLParser) -> None:
    hidden = [node for node in page.css("[style]") if _HIDING.search(node.attributes.get("style") or "")]
    for node in [*page.css(_UNSEEN), *hidden]:
        if node.tag != "html":  # which can't be dropped, and means the page's own parts
            node.decompose()


def _blocks(page: LexborHTMLParser, tables: set[int]) -> Iterator[tuple[LexborNode, str]]:
    """Each block that has text of its own, with it, in the order of the page; a table comes once, without text."""

    def block_of(node: LexborNode) -> LexborNode:
        nearest, above = None, node.parent
        while above is not None and above.tag != "-document":
            if above.mem_id in tables:
                return above
            if nearest is None and above.tag in _BLOCKS:
                nearest = above
            above = above.parent
        return nearest or node

    assert page.root is not None
    seen = [node for node in page.root.traverse(include_text=True) if node.tag in ("-text", "br")]
    located = [(block_of(node), node) for node in seen]
    for _, group in groupby(located, key=lambda pair: pair[0].mem_id):
        found = list(group)
        block = found[0][0]
        pieces = ["\n" if node.tag == "br" else node.text_content or "" for _, node in found]
        if block.tag == "pre":
            words = "".join(pieces).strip("\n")
        else:
            flat = ("\n" if piece == "\n" else _unbroken(piece) for piece in pieces)
            words = "\n".join(filter(None, map(_tidy, "".join(flat).split("\n"))))
        if words:
            yield block, words


def _row(row: LexborNode) -> str:
    return " | ".join(_tidy(cell.text()) for cell in row.css("th,td"))


def _tidy(text: str) -> str:
    return " ".join(_unbroken(text).split())


def _unbroken(text: str) -> str:
    """One line. Where Chinese was broken into lines there is no space; where other text was, there is."""
    joined = re.sub(rf"(?<=[{CJK}，。、；：！？])\s*\n\s*(?=[{CJK}])", "", text)
    return re.sub(r"\s+", " ", joined)
