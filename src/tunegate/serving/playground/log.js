// Where the conversation is read, and where the next message is written.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { onTouch, toComposer } from "./focus.js";

const NEAR_PIXELS = 48; // so near the bottom counts as there

/** The conversation; it follows what comes as long as its end is in sight. */
export function Log({ turns, answering, texts, children }) {
  const log = useRef();
  const follows = useRef(true);
  const [away, setAway] = useState(false);
  const toEnd = () => { log.current.scrollTop = log.current.scrollHeight; };
  const look = () => {
    const { scrollHeight, scrollTop, clientHeight } = log.current;
    follows.current = scrollHeight - scrollTop - clientHeight < NEAR_PIXELS;
    setAway(!follows.current);
  };
  useLayoutEffect(() => { follows.current = true; }, [turns.length]);
  useLayoutEffect(() => { if (follows.current) toEnd(); }, [turns]);
  return html`
    <div class="log" role="region" aria-label=${texts.conversation} tabindex="0" ref=${log} onScroll=${look}>
      <div class="turns">${children}</div>
    </div>
    ${away && answering && html`<button type="button" class="latest" onClick=${toEnd}>↓ ${texts.latest}</button>`}`;
}

/** The form for the next message; Enter sends it, and Escape stops the answer under way.
 *
 * While nothing serves, a message that is sent waits, and goes out when something does, unless it is changed before.
 */
export function Composer({ texts, answering, ready, onSend, onStop }) {
  const [text, setText] = useState("");
  const [waits, setWaits] = useState(false);
  useEffect(toComposer, []);
  useEffect(() => {
    const escape = (event) => event.key === "Escape" && onStop();
    addEventListener("keydown", escape);
    return () => removeEventListener("keydown", escape);
  }, []);
  const send = () => {
    setWaits(!ready);
    if (!ready) return;
    onSend(text);
    setText("");
    if (onTouch()) document.activeElement.blur(); // its keyboard would cover the answer
  };
  useEffect(() => { if (ready && waits) send(); }, [ready]);
  const submit = (event) => {
    event.preventDefault();
    if (!answering && text.trim()) send();
  };
  const change = (event) => {
    setText(event.target.value);
    setWaits(false);
  };
  const press = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event); // an input method's Enter is its own
  };
  return html`
    <p class="note waits" role="status">${waits && texts.waits}</p>
    <form class="composer" onSubmit=${submit}>
      <textarea id="message" rows="1" aria-label=${texts.question} placeholder=${texts.question} value=${text}
        onInput=${change} onKeyDown=${press} />
      ${answering
        ? html`<button type="button" class="primary" key="stop" onClick=${() => { onStop(); toComposer(); }}>${texts.stop}</button>`
        : html`<button class="primary" key="send" disabled=${waits || !text.trim()}>${texts.send}</button>`}
    </form>`;
}
