// The page: one conversation with the served model, its settings and its requests.

import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Turn, onTouch, short, toComposer } from "./answer.js";
import { NOTHING, Problem, ask, served as askServed, write } from "./chat.js";
import { LANGUAGES, TEXTS, explain, preferred } from "./language.js";
import { Request, Settings } from "./panel.js";

const OPEN = { temperature: "", top_p: "", max_tokens: "", seed: "" };
const REDRAW_MILLISECONDS = 40; // 25 pictures a second, however quick the tokens come
const LOOK_AGAIN_MILLISECONDS = 2000;
const NEAR_PIXELS = 48; // so near the bottom counts as there

function App() {
  const [language, setLanguage] = useState(() => recall("localStorage", "language") ?? preferred());
  const [settings, setSettings] = useState(() => ({ system: "", decoding: OPEN, key: recall("sessionStorage", "key") ?? "" }));
  const [panelOpen, setPanelOpen] = useState(false);
  const [inspected, setInspected] = useState(null);
  const { served, problem } = useServed(settings.key);
  const { turns, answering, send, stop, retry, clear } = useConversation(served, settings);
  const texts = TEXTS[language];
  useEffect(() => {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    document.title = [served?.id, "tunegate"].filter(Boolean).join(" · ");
  }, [language, served]);

  const change = (changed) => {
    setSettings(changed);
    remember("sessionStorage", "key", changed.key);
  };
  const inspect = (turn) => {
    setInspected(turn.id);
    setPanelOpen(true);
    later(() => {
      document.getElementById("curl").focus();
      document.getElementById("request").scrollIntoView({ block: "start" });
    });
  };
  const enterKey = () => {
    setPanelOpen(true);
    later(() => document.getElementById("key").focus());
  };
  const switchTo = language === "zh" ? "en" : "zh";
  const shown = turns.find((turn) => turn.id === inspected) ?? turns.at(-1);
  return html`
    <div class="page ${panelOpen ? "panel-open" : ""}">
      <header>
        <img src="playground/icon.svg" alt="" width="28" height="28" />
        <h1>tunegate <span>${texts.title}</span></h1>
        ${served && html`<p class="badge" title=${served.digest}><b>${served.id}</b> <code>${short(served.digest)}</code></p>`}
        <nav>
          <button type="button" onClick=${() => { clear(); toComposer(); }} disabled=${turns.length === 0}>${texts.newChat}</button>
          <button type="button" lang=${switchTo} aria-label="${texts.otherLanguage} ${LANGUAGES[switchTo]}"
            onClick=${() => { setLanguage(switchTo); remember("localStorage", "language", switchTo); }}>${LANGUAGES[switchTo]}</button>
          <button type="button" class="to-panel" aria-expanded=${panelOpen} aria-controls="panel"
            onClick=${() => setPanelOpen(!panelOpen)}>${panelOpen ? texts.backToChat : texts.settings}</button>
        </nav>
      </header>
      <main>
        <div class="chat">
          <${Log} turns=${turns} answering=${answering} texts=${texts}>
            ${turns.length === 0 && html`
              <div class="welcome">
                <h2>${texts.talkTo(served?.id ?? "…")}</h2>
                <p>${texts.purpose}</p>
                <p class="hint">${texts.keys}</p>
              </div>`}
            ${problem && html`
              <p class="problem" role="alert">
                ${explain(problem, { ...texts, problems: { ...texts.problems, 0: texts.problems.unreachable } })}
                ${problem.status === 401 && html` <button type="button" onClick=${enterKey}>${texts.enterKey}</button>`}
              </p>`}
            ${turns.map((turn, place) => html`
              <${Turn} key=${turn.id} turn=${turn} last=${place === turns.length - 1} served=${served} apiKey=${settings.key}
                texts=${texts} onInspect=${() => inspect(turn)} onRetry=${() => { retry(turn); toComposer(); }} onKey=${enterKey} />`)}
          <//>
          <${Composer} texts=${texts} answering=${answering} ready=${served !== null} onSend=${send} onStop=${stop} />
        </div>
        <section id="panel" aria-label=${texts.panel}>
          <${Settings} settings=${settings} texts=${texts} onChange=${change} />
          <${Request} turn=${shown} served=${served} withKey=${settings.key !== ""} texts=${texts} />
        </section>
      </main>
      <p class="unseen" role="status">${announce(turns.at(-1), texts)}</p>
    </div>`;
}

/** Which model is served: asked anew with each key, and until a server that is away or not ready answers. */
function useServed(key) {
  const [found, setFound] = useState({ served: null, problem: null });
  useEffect(() => {
    let current = true;
    let waiting = 0;
    const look = async () => {
      const result = await askServed(key).then((served) => ({ served, problem: null }), (problem) => ({ served: null, problem }));
      if (!current) return;
      setFound(result);
      if ([0, 503].includes(result.problem?.status)) waiting = setTimeout(look, LOOK_AGAIN_MILLISECONDS);
    };
    look();
    return () => { current = false; clearTimeout(waiting); };
  }, [key]);
  return found;
}

/** The turns so far, and what can be done with them. */
function useConversation(served, settings) {
  const [turns, setTurns] = useState([]);
  const under = useRef(null); // the answer under way
  const answering = turns.at(-1)?.state === "answering";
  const stop = () => under.current?.abort();

  const start = async (earlier, question) => {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    const body = write(served.id, earlier, question, settings, visitor());
    const change = (fields) => setTurns((turns) => turns.map((turn) => (turn.id === id ? { ...turn, ...fields } : turn)));
    const control = (under.current = new AbortController());
    setTurns([...earlier, { id, question, body, answer: NOTHING, state: "answering" }]);
    let answer = NOTHING;
    let redraw = 0;
    let ended = { state: "finished" };
    try {
      for await (answer of ask(body, settings.key, control.signal)) {
        redraw ||= setTimeout(() => { redraw = 0; change({ answer }); }, REDRAW_MILLISECONDS);
      }
    } catch (problem) {
      if (control.signal.aborted) ended = { state: "stopped" };
      else if (problem instanceof Problem) ended = { state: "failed", problem };
      else throw problem;
    }
    clearTimeout(redraw);
    change({ answer, ...ended });
  };
  return {
    turns,
    answering,
    stop,
    send: (question) => start(turns, question),
    retry: (failed) => start(turns.filter((turn) => turn !== failed), failed.question),
    clear: () => { stop(); setTurns([]); },
  };
}

/** The conversation; it follows what comes as long as its end is in sight. */
function Log({ turns, answering, texts, children }) {
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

function Composer({ texts, answering, ready, onSend, onStop }) {
  const [text, setText] = useState("");
  useEffect(toComposer, []);
  useEffect(() => {
    const escape = (event) => event.key === "Escape" && onStop();
    addEventListener("keydown", escape);
    return () => removeEventListener("keydown", escape);
  }, []);
  const submit = (event) => {
    event.preventDefault();
    if (answering || !ready || !text.trim()) return;
    onSend(text);
    setText("");
    if (onTouch()) document.activeElement.blur(); // its keyboard would cover the answer
  };
  const press = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event); // an input method's Enter is its own
  };
  return html`
    <form class="composer" onSubmit=${submit}>
      <textarea id="message" rows="1" aria-label=${texts.question} placeholder=${texts.question} value=${text}
        onInput=${(event) => setText(event.target.value)} onKeyDown=${press} />
      ${answering
        ? html`<button type="button" class="primary" key="stop" onClick=${() => { onStop(); toComposer(); }}>${texts.stop}</button>`
        : html`<button class="primary" key="send" disabled=${!ready || !text.trim()}>${texts.send}</button>`}
    </form>`;
}

function announce(turn, texts) {
  if (turn?.state === "answering") return texts.answering;
  return turn?.state === "finished" ? texts.finished(turn.answer.text) : "";
}

/** One name for this browser, so that of one person's verdicts no more count than of another's. */
function visitor() {
  const name = recall("localStorage", "visitor") ?? `playground-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  remember("localStorage", "visitor", name);
  return name;
}

const later = (act) => setTimeout(act);

/** What was kept in this browser, or null; where storage is forbidden, nothing is kept. */
function recall(storage, name) {
  try {
    return globalThis[storage].getItem(`tunegate.${name}`);
  } catch {
    return null;
  }
}

function remember(storage, name, value) {
  try {
    globalThis[storage].setItem(`tunegate.${name}`, value);
  } catch {
    // It is for this page alone, then.
  }
}

document.body.replaceChildren();
render(html`<${App} />`, document.body);
