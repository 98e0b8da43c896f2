// One item: what was asked, what was answered, and what the reviewer says of it.

import { html, useEffect, useMemo, useRef, useState } from "../playground/vendor/htm-preact.js";
import { safeHtml } from "../playground/markdown.js";
import { recall, remember } from "../playground/storage.js";
import { Outbox, call, freshId } from "./desk.js";
import { Judge } from "./judge.js";

const AT_ONCE = "changed before going on";

/** The item at hand, its marks, and the ways to the next one and back. */
function useItem(about, onLost) {
  const [item, setItem] = useState(undefined); // null: nothing is left
  const [progress, setProgress] = useState({ own: about.own, left: about.left });
  const [back, setBack] = useState(null); // the place among one's own items, when looking back
  const [saving, setSaving] = useState({ waiting: 0, away: false });
  const [problem, setProblem] = useState(null);
  const since = useRef(0);
  const marks = useRef({}); // as they are, also for what still sees an older item
  const outbox = useRef();
  const moving = useRef(false); // to another item: keys are not for this one any more
  const show = (found, place) => {
    setProgress({ own: found.own, left: found.left });
    setItem(found.item);
    marks.current = found.item?.marks ?? {};
    setBack(place);
    setProblem(null);
    since.current = performance.now();
  };
  const fail = (failed) => (failed.status === 401 ? onLost() : setProblem(failed));
  const move = async (path, place) => {
    if (moving.current) return;
    moving.current = true;
    if (await outbox.current.send()) await call(path).then((found) => show(found, place), fail);
    moving.current = false;
  };
  const next = () => move("next", null);
  const look = (place) => {
    if (place >= progress.own.length) next();
    else if (place >= 0) move(`items/${progress.own[place]}`, place);
  };
  useEffect(() => {
    outbox.current = new Outbox(
      (waiting, away) => setSaving({ waiting, away }),
      (answer) => setProgress({ own: answer.own, left: answer.left }),
      fail,
    );
    next();
  }, []);
  const mark = (criterion, value, reason = AT_ONCE) => {
    const older = marks.current[criterion];
    if (moving.current || older?.value === value) return;
    const id = freshId();
    const now = performance.now();
    const seconds = Math.round(now - since.current) / 1000;
    since.current = now;
    const change = older ? { replaces: older.id, reason } : {};
    outbox.current.add({ id, item: item.digest, criterion, value, seconds, ...change });
    marks.current = { ...marks.current, [criterion]: { id, value } };
    setItem((shown) => ({ ...shown, marks: marks.current }));
  };
  return { item, progress, back, saving, problem, mark, next, look };
}

export function Item({ about, texts, onLost }) {
  const { item, progress, back, saving, problem, mark, next, look } = useItem(about, onLost);
  const total = progress.own.length + progress.left;
  const previous = () => look((back ?? progress.own.length) - 1 - (back === null && progress.own.at(-1) === item?.digest ? 1 : 0));
  const forward = () => (back === null ? next() : look(back + 1));
  return html`
    <section class="progress" aria-label=${texts.progress}>
      <progress value=${progress.own.length} max=${total || 1} aria-label=${texts.progress} />
      <span>${texts.done(progress.own.length, total)}</span>
      <span class="state ${saving.away ? "away" : ""}" role="status">${state(saving, texts)}</span>
    </section>
    ${problem && html`<p class="problem" role="alert">${problem.message || texts.unreachable} <button type="button" onClick=${next}>${texts.tryAgain}</button></p>`}
    ${item === null && html`
      <main class="join"><div>
        <h2>${texts.finished}</h2><p>${texts.thanks(progress.own.length)}</p>
        <p><button type="button" onClick=${next}>${texts.lookAgain}</button> ${progress.own.length > 0 && html`<button type="button" onClick=${previous}>${texts.back}</button>`}</p>
      </div></main>`}
    ${item && html`
      <main class="desk" key=${item.digest}>
        <div class="shown" tabindex="0" role="region" aria-label=${texts.item}>
          <${Asked} item=${item} texts=${texts} shows=${!about.decides} />
          <div class="answers ${item.answers.length === 2 ? "two" : ""}">
            ${item.answers.map((answer, place) => html`
              <article aria-label=${answerName(item, place, texts)}>
                <h2>${answerName(item, place, texts)}</h2>
                <${Text} text=${answer} empty=${texts.empty} />
              </article>`)}
            ${about.decides && item.reference && html`
              <article aria-label=${texts.proposed}><h2>${texts.proposed}</h2><${Text} text=${item.reference} /></article>`}
          </div>
        </div>
        <${Judge} about=${about} item=${item} texts=${texts} again=${back !== null} first=${progress.own.length === 0 || back === 0}
          onMark=${mark} onNext=${forward} onPrevious=${previous} />
      </main>`}`;
}

const answerName = (item, place, texts) => (item.answers.length === 2 ? texts.answers[place] : texts.answer);

function state({ waiting, away }, texts) {
  if (away) return texts.notSaved(waiting);
  return waiting ? texts.saving : texts.saved;
}

/** shows: whether the reference is folded here; where people decide about it, it stands beside the answer. */
function Asked({ item, texts, shows }) {
  return html`
    <section class="asked" aria-label=${texts.asked}>
      ${item.context && html`<p class="context"><b>${texts.context}</b> ${item.context}</p>`}
      ${item.messages.map(({ role, content }) => role === "system"
        ? html`<${Fold} name="told" title=${texts.system} text=${content} />`
        : html`<p class=${role === "user" ? "question" : "earlier"} dir="auto">${content}</p>`)}
      ${shows && item.reference && html`<${Fold} name="reference" title=${texts.reference} text=${item.reference} />`}
    </section>`;
}

/** Open for the next item, too, where it was opened for this one. */
function Fold({ name, title, text }) {
  const kept = `review-open-${name}`;
  return html`
    <details class="steps" open=${recall("localStorage", kept) === "yes"}
      onToggle=${(event) => remember("localStorage", kept, event.currentTarget.open ? "yes" : "no")}>
      <summary>${title}</summary><p>${text}</p>
    </details>`;
}

function Text({ text, empty }) {
  const content = useMemo(() => safeHtml(text), [text]);
  if (!text.trim()) return html`<p class="hint">${empty}</p>`;
  return html`<div class="text" dir="auto" dangerouslySetInnerHTML=${{ __html: content }} />`;
}
