// The one place where text of a model becomes HTML. HTML that a model writes stays text, which people who judge it should
// see; what Markdown makes passes a short list: no images, which would tell other servers that they were looked at, and
// links that open elsewhere and don't say where from.

import { marked } from "./vendor/marked.js";
import "./vendor/purify.js";

const { DOMPurify } = globalThis;

const ALLOWED = {
  ALLOWED_TAGS: [
    ..."p br hr strong em del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6".split(" "),
    ..."a table thead tbody tr th td".split(" "),
  ],
  ALLOWED_ATTR: ["href", "align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_TRUSTED_TYPE: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (["PRE", "TABLE"].includes(node.tagName)) node.setAttribute("tabindex", "0"); // to scroll it by keyboard
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
marked.use({
  breaks: true,
  renderer: {
    html: ({ text }) => (/^<br ?\/?>$/i.test(text) ? text : escape(text)), // tables have no other line break
    image: ({ text }) => escape(text),
  },
});

/** The HTML of Markdown that nobody has checked. */
export function safeHtml(markdown) {
  return DOMPurify.sanitize(marked.parse(markdown), ALLOWED);
}

/** Whether `url` may be linked to: other schemes run code or read files. */
export const isLink = (url) => ALLOWED.ALLOWED_URI_REGEXP.test(url);
