// The form: criteria that keys answer, a comment, and why an earlier mark is changed.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../playground/vendor/htm-preact.js";
import { recall, remember } from "../playground/storage.js";

const PAIR = [["left", "a"], ["right", "b"], ["tie", "t"], ["both_bad", "x"]];
const YES_NO = [[1, "y"], [0, "n"]];

/** What a criterion may be given, each with its key and its words. */
function optionsOf(criterion, { mode, decides }, texts) {
  if (mode === "pairs") return PAIR.map(([value, key]) => ({ value, key, label: texts.pair[value] }));
  const label = (value, place) => (decides ? "" : criterion.labels[place] ?? "");
  if (criterion.values.length === 2) return YES_NO.map(([value, key]) => ({ value, key, label: label(value, value) || texts.yesNo[value] }));
  return criterion.values.map((value, place) => ({ value, key: String(value), label: label(value, place) }));
}

/** Whether it is a scale whose points have no words. */
const isBare = (criterion, mode) => mode === "single" && criterion.values.length > 2 && criterion.labels.length === 0;

export function Judge({ about, item, texts, again, first, onMark, onNext, onPrevious }) {
  const [comment, setComment] = useDraft(item);
  const [change, setChange] = useState(null); // {criterion, value}: waits for its reason
  const nextButton = useRef();
  const field = useRef(); // of the comment, or of the better answer
  const given = (name) => item.marks[name]?.value;
  const missing = about.criteria.filter(({ name }) => given(name) === undefined);
  const [chosen, setChosen] = useState(null); // the criterion that keys answer, where it isn't the first without a mark
  const current = chosen ?? (missing[0] ?? about.criteria[0]).name;

  const say = (criterion, value) => {
    if (given(criterion) === value) return;
    if (again && given(criterion) !== undefined) {
      setChange({ criterion, value });
      return;
    }
    onMark(criterion, value);
    setChosen(null);
    if (missing.every(({ name }) => name === criterion)) nextButton.current?.focus();
  };
  const keepComment = () => {
    const text = comment.trim();
    if (text === (given("comment") ?? "")) return;
    if (again && given("comment") !== undefined) setChange({ criterion: "comment", value: text });
    else onMark("comment", text);
  };
  const goOn = () => {
    if (missing.length) {
      document.getElementById(`criterion-${missing[0].name}`)?.scrollIntoView({ block: "nearest" });
      return;
    }
    keepComment();
    if (!again || comment.trim() === (given("comment") ?? "")) onNext();
  };
  const edit = () => {
    if (!comment.trim()) setComment(item.reference || item.answers[0]);
    field.current.focus();
  };
  const step = (by) => {
    const place = about.criteria.findIndex(({ name }) => name === current) + by;
    setChosen(about.criteria[Math.max(0, Math.min(place, about.criteria.length - 1))].name);
  };
  useLayoutEffect(() => { // at once: the next key may come before the page is painted
    const press = (event) => {
      const typing = /^(INPUT|TEXTAREA)$/.test(event.target.tagName);
      if (event.key === "Escape" && typing) event.target.blur();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.tagName === "TEXTAREA") goOn();
      if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      const criterion = about.criteria.find(({ name }) => name === current);
      const option = optionsOf(criterion, about, texts).find(({ key }) => key === event.key.toLowerCase());
      const own = /^(BUTTON|SUMMARY|A)$/.test(event.target.tagName); // they have an Enter of their own
      const acts = {
        c: () => field.current.focus(),
        ...(about.decides && { e: edit }),
        ArrowLeft: onPrevious,
        ArrowRight: goOn,
        ...(about.criteria.length > 1 && { ArrowUp: () => step(-1), ArrowDown: () => step(1) }),
        ...(!own && { Enter: goOn }),
      };
      const act = option ? () => say(current, option.value) : acts[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
  return html`
    <section class="judge" aria-label=${texts.judge}>
      ${about.criteria.map((criterion) => html`
        <fieldset id="criterion-${criterion.name}" class=${criterion.name === current ? "current" : ""} key=${criterion.name}>
          <legend>${(about.decides && texts.decisions[criterion.name]) || criterion.question || texts.questions[criterion.name] || criterion.name}</legend>
          <div class="options ${isBare(criterion, about.mode) ? "scale" : about.mode === "pairs" ? "pair" : ""}">
            ${optionsOf(criterion, about, texts).map(({ value, key, label }) => html`
              <button type="button" aria-pressed=${given(criterion.name) === value} onClick=${() => say(criterion.name, value)}>
                <kbd>${key.toUpperCase()}</kbd>${label && html` <span>${label}</span>`}
              </button>`)}
          </div>
          ${isBare(criterion, about.mode) && html`<p class="hint">${texts.scale(criterion.values.at(-1))}</p>`}
        </fieldset>`)}
      ${change && html`<${Reason} texts=${texts} onCancel=${() => setChange(null)}
        onGiven=${(reason) => { onMark(change.criterion, change.value, reason); setChange(null); }} />`}
      ${about.decides && html`<button type="button" class="edit" onClick=${edit}><kbd>E</kbd> ${texts.edit}</button>`}
      <label>${about.decides ? texts.better : texts.comment} <kbd>C</kbd>
        <textarea id="comment" ref=${field} rows=${about.decides ? 5 : 2} maxlength="10000" value=${comment} onInput=${(event) => setComment(event.target.value)} onBlur=${keepComment} />
      </label>
      <div class="ways">
        <button type="button" disabled=${first} onClick=${onPrevious}><kbd>←</kbd> ${texts.back}</button>
        <button type="button" class="primary" ref=${nextButton} aria-disabled=${missing.length > 0} onClick=${goOn}>${texts.next} <kbd>Enter</kbd></button>
      </div>
    </section>`;
}

function Reason({ texts, onGiven, onCancel }) {
  const [reason, setReason] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (reason.trim()) onGiven(reason.trim());
  };
  const field = useRef();
  useEffect(() => {
    field.current.focus();
    field.current.form.scrollIntoView({ block: "nearest" });
  }, []);
  return html`
    <form class="reasons" onSubmit=${submit}>
      <label>${texts.why}<input ref=${field} value=${reason} maxlength="10000" onInput=${(event) => setReason(event.target.value)} /></label>
      <div class="actions">
        <button class="primary" disabled=${!reason.trim()}>${texts.change}</button>
        <button type="button" onClick=${onCancel}>${texts.cancel}</button>
      </div>
    </form>`;
}

/** The comment as it is written; a page that is loaded again has it still. */
function useDraft(item) {
  const kept = recall("localStorage", "review-draft")?.split("\n");
  const drafted = kept?.[0] === item.digest ? kept.slice(1).join("\n") : null;
  const [text, setText] = useState(drafted ?? item.marks.comment?.value ?? "");
  return [text, (written) => {
    setText(written);
    remember("localStorage", "review-draft", `${item.digest}\n${written}`);
  }];
}
