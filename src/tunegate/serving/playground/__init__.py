"""The files of the playground, which other pages of ours share, and what browsers are told of them."""

from pathlib import Path

FOLDER = Path(__file__).parent
KINDS = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing from elsewhere, nothing inline, and HTML from text only through the sanitizer.
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
