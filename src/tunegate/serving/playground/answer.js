// One turn of the conversation: the question, the answer as it comes, who gave it, and what people think of it.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { judge } from "./chat.js";
import { toComposer } from "./focus.js";
import { explain } from "./language.js";
import { safeHtml } from "./markdown.js";
import { Sources, Steps, placeOf, showSource } from "./evidence.js";

const TAGS = { up: ["correct", "complete", "clear"], down: ["wrong", "incomplete", "unclear", "tone", "unsafe"] };
const THUMB = "M7 10.5 11 3a2.5 2.5 0 0 1 2.5 2.5V9h5.2a2 2 0 0 1 2 2.3l-1.2 7.2a2.5 2.5 0 0 1-2.5 2.1H7zM7 10.5v10.1H3.5V10.5z";

/** One question and its answer; `turn.state` is answering, finished, stopped or failed. */
export function Turn({ turn, last, served, apiKey, texts, onInspect, onRetry, onKey }) {
  const { answer, state } = turn;
  return html`
    <article class="question" aria-label=${texts.you}>${turn.question}</article>
    <article class="answer" aria-label=${texts.answer} aria-busy=${state === "answering"}>
      <${Steps} answer=${answer} open=${state === "answering" && !answer.text} texts=${texts} />
      ${state === "answering" && !answer.text && html`<p class="waiting" aria-hidden="true"><i /><i /><i /></p>`}
      <${Text} text=${answer.text} sources=${answer.sources} turn=${turn.id} />
      <${Sources} answer=${answer} turn=${turn.id} texts=${texts} />
      ${answer.finish === "length" && html`<p class="note">${texts.cut}</p>`}
      ${state === "stopped" && html`<p class="note">${texts.stopped}</p>`}
      ${state === "failed" && html`<p class="problem" role="alert">${explain(turn.problem, texts)}</p>`}
      ${last && (state === "failed" || state === "stopped") && html`
        <p class="actions">
          <button type="button" onClick=${onRetry}>${texts.tryAgain}</button>
          ${turn.problem?.status === 401 && html`<button type="button" onClick=${onKey}>${texts.enterKey}</button>`}
        </p>`}
      <${Origin} answer=${answer} served=${served} texts=${texts} />
      ${state === "finished" && html`
        <${Verdict} answer=${answer} apiKey=${apiKey} texts=${texts} onInspect=${onInspect} />`}
    </article>`;
}

/** The text, in which each number that cites a source leads to it. */
function Text({ text, sources, turn }) {
  const content = useMemo(() => safeHtml(text, (number) => placeOf(sources, turn, number)), [text, sources]);
  return html`<div class="text" dir="auto" onClick=${showSource} dangerouslySetInnerHTML=${{ __html: content }} />`;
}

function Origin({ answer, served, texts }) {
  const { digest, name, step } = originOf(answer, served);
  if (!digest) return null;
  return html`
    <p class="origin">
      <span class="badge" title=${digest}>${texts.version} ${name} <code>${short(digest)}</code></span>
      ${step && html`<span class="badge canary">${texts.step(step.number, step.promotion)}</span>`}
    </p>`;
}

/** The first 12 digits of a digest, as everywhere in tunegate. */
export const short = (digest) => digest.replace("sha256:", "").slice(0, 12);

/** Who answered: the version's digest, its name where it is the one that is listed, and the canary's step. */
export function originOf(answer, served) {
  const digest = answer.headers?.["x-tunegate-version"];
  const [, promotion, index] = /^(.+)\/(\d+)$/.exec(answer.headers?.["tunegate-step"] ?? "") ?? [];
  const name = served?.digest === digest ? served.version.replace(/^[^/]*\//, "") : "";
  return { digest, name, step: promotion && { promotion, number: Number(index) + 1 } };
}

function Verdict({ answer, apiKey, texts, onInspect }) {
  const [sent, setSent] = useState({ verdict: null, status: "" }); // it may be changed, or get a reason
  const [verdict, setVerdict] = useState(null); // the one whose form is open
  const choose = (chosen) => setVerdict(verdict === chosen ? null : chosen);
  const thumbs = { up: useRef(), down: useRef() };
  const cancel = () => {
    thumbs[verdict].current.focus();
    setVerdict(null);
  };
  const keep = (status) => {
    setSent({ verdict, status });
    setVerdict(null);
    toComposer();
  };
  const thumb = (chosen, label) => html`
    <button type="button" class="icon ${chosen}" ref=${thumbs[chosen]} aria-label=${label} title=${label} aria-pressed=${(verdict ?? sent.verdict) === chosen}
      onClick=${() => choose(chosen)}>
      <svg viewBox="0 0 24 24" aria-hidden="true"><path d=${THUMB} /></svg>
    </button>`;
  return html`
    <div class="actions">
      ${thumb("up", texts.good)} ${thumb("down", texts.bad)}
      <${Copy} text=${answer.text} label=${texts.copy} texts=${texts} />
      <button type="button" onClick=${onInspect}>${texts.inspect}</button>
      <span class="said" role="status">${sent.status && texts[sent.status]}</span>
    </div>
    ${verdict && html`
      <${Reasons} key=${verdict} verdict=${verdict} id=${answer.id} apiKey=${apiKey} texts=${texts}
        onKept=${keep} onCancel=${cancel} />`}`;
}

function Reasons({ verdict, id, apiKey, texts, onKept, onCancel }) {
  const [problem, setProblem] = useState(null);
  const [sending, setSending] = useState(false);
  const first = useRef();
  useEffect(() => {
    first.current.focus();
    first.current.form.scrollIntoView({ block: "nearest" });
  }, []);
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const text = (name) => form.get(name)?.trim() || undefined;
    const body = { response_id: id, verdict, tags: form.getAll("tag"), comment: text("comment"), correction: text("correction") };
    setSending(true);
    setProblem(null);
    try {
      onKept(await judge(body, apiKey));
    } catch (failure) {
      setProblem(failure);
      setSending(false);
    }
  };
  const escape = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation(); // it closes the form and stops no answer
    onCancel();
  };
  return html`
    <form class="reasons" onSubmit=${send} onKeyDown=${escape}>
      <fieldset>
        <legend>${verdict === "up" ? texts.whyGood : texts.whyBad}</legend>
        ${TAGS[verdict].map((tag, place) => html`
          <label class="tag"><input type="checkbox" name="tag" value=${tag} ref=${place === 0 ? first : null} />${texts.tags[tag]}</label>`)}
      </fieldset>
      <label>${texts.comment}<textarea name="comment" rows="2" maxlength="4000" /></label>
      ${verdict === "down" && html`
        <label>${texts.correction}<textarea name="correction" rows="2" maxlength="4000" /></label>`}
      ${problem && html`<p class="problem" role="alert">${explain(problem, texts)}</p>`}
      <p class="actions">
        <button class="primary" disabled=${sending}>${texts.sendVerdict}</button>
        <button type="button" onClick=${onCancel}>${texts.cancel}</button>
      </p>
    </form>`;
}

/** Copies `text`; browsers let pages do so on HTTPS and on this machine only. */
export function Copy({ text, label, texts }) {
  const [copied, setCopied] = useState(false);
  if (!navigator.clipboard) return null;
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
  };
  return html`<button type="button" onClick=${copy} onBlur=${() => setCopied(false)}>${copied ? texts.copied : label}</button>`;
}
