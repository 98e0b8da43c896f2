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
  ALLOWED_URI_REGEXP: /^(?:(?:https?|mailto):|#source-\d+-\d+$)/i,
  RETURN_TRUSTED_TYPE: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (["PRE", "TABLE"].includes(node.tagName)) node.setAttribute("tabindex", "0"); // to scroll it by keyboard
  if (node.tagName !== "A" || node.getAttribute("href")?.startsWith("#")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
let placeOfSource = () => undefined; // while a text is parsed: where the source of a number is
const citation = {
  name: "citation",
  level: "inline",
  start: (text) => text.match(/\[\d{1,3}\]/)?.index,
  tokenizer(text) {
    const [raw, number] = /^\[(\d{1,3})\](?![(:[])/.exec(text) ?? [];
    const place = raw && placeOfSource(Number(number));
    return place ? { type: "citation", raw, place } : undefined;
  },
  renderer: ({ raw, place }) => `<a href="#${place}">${raw}</a>`,
};
marked.use({
  breaks: true,
  extensions: [citation],
  renderer: {
    html: ({ text }) => (/^<br ?\/?>$/i.test(text) ? text : escape(text)), // tables have no other line break
    image: ({ text }) => escape(text),
  },
});

/** The HTML of Markdown that nobody has checked. place: the id of what a number in brackets cites, if it cites one. */
export function safeHtml(markdown, place) {
  placeOfSource = place;
  return DOMPurify.sanitize(marked.parse(markdown), ALLOWED);
}

/** Whether `url` may be linked to: other schemes run code or read files. */
export const isLink = (url) => /^(?:https?|mailto):/i.test(url);
