// What an answer rests on: the steps on the way to it, and the sources that it may cite by number.

import { html } from "./vendor/htm-preact.js";
import { isLink } from "./markdown.js";

/** Reasoning, tools that were asked, and calls that the client is to make; `open`: they show without being asked for. */
export function Steps({ answer, open, texts }) {
  const count = answer.steps.length + answer.calls.length + (answer.reasoning ? 1 : 0);
  if (count === 0) return null;
  return html`
    <details class="steps" open=${open}>
      <summary>${texts.steps(count)}</summary>
      ${answer.reasoning && html`<h2>${texts.reasoning}</h2><p>${answer.reasoning}</p>`}
      ${answer.steps.map((step) => html`<${Step} step=${step} texts=${texts} />`)}
      ${answer.calls.map((call) => html`<h2>${call.name}</h2><pre tabindex="0">${call.arguments}</pre>`)}
    </details>`;
}

function Step({ step, texts }) {
  return html`
    <section class=${step.failed ? "step failed" : "step"}>
      <h2>${step.number}. ${step.tool} <span>${step.failed ? texts.failed : texts.seconds(step.seconds)}</span></h2>
      ${step.thought && html`<p>${step.thought}</p>`}
      <pre tabindex="0">${step.input}</pre>
      <pre tabindex="0" class="observed">${step.observation}</pre>
    </section>`;
}

/** The sources in the order of their numbers; what the answer cites stands out. */
export function Sources({ answer, turn, texts }) {
  const { sources, cited } = answer;
  if (sources.length === 0) return null;
  return html`
    <h2>${texts.sources}</h2>
    <ol class="sources">
      ${sources.map((source) => html`
        <li id=${placeOf(sources, turn, source.number)} class=${cited?.includes(source.number) ? "cited" : ""}>
          <${Source} source=${source} texts=${texts} />
        </li>`)}
    </ol>
    ${cited?.length === 0 && html`<p class="note">${texts.uncited}</p>`}`;
}

function Source({ source, texts }) {
  const name = source.title || source.uri;
  const link = isLink(source.uri) && html`<a href=${source.uri} target="_blank" rel="noopener noreferrer">${source.text ? texts.visit : name}</a>`;
  if (!source.text) return link || name;
  const place = [link ? "" : source.uri, texts.place(source)].filter(Boolean).join(", ");
  return html`
    <details>
      <summary>${name}</summary>
      <p class="hint">${place} ${link}</p>
      <p>${source.text}</p>
    </details>`;
}

/** The id of a source of this turn on the page; undefined where no source has that number. */
export const placeOf = (sources, turn, number) =>
  sources.some((source) => source.number === number) ? `source-${turn}-${number}` : undefined;

/** A click on a number in the text opens the source that it cites. */
export function showSource(event) {
  const place = event.target.closest("a")?.getAttribute("href");
  if (!place?.startsWith("#")) return;
  event.preventDefault();
  const source = document.getElementById(place.slice(1));
  const details = source?.querySelector("details");
  if (details) details.open = true;
  source?.scrollIntoView({ block: "nearest" });
  source?.querySelector("summary, a")?.focus();
}
