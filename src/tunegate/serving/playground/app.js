// The page: one conversation with the served model, its settings and its requests.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { Turn, short } from "./answer.js";
import { useConversation, useServed } from "./conversation.js";
import { later, toComposer } from "./focus.js";
import { LANGUAGES, TEXTS, explain, preferred } from "./language.js";
import { Composer, Log } from "./log.js";
import { Request, Settings } from "./panel.js";
import { recall, remember } from "./storage.js";

const OPEN = { temperature: "", top_p: "", max_tokens: "", seed: "" };

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
  const speak = (chosen) => {
    setLanguage(chosen);
    remember("localStorage", "language", chosen);
  };
  const shown = turns.find((turn) => turn.id === inspected) ?? turns.at(-1);
  return html`
    <div class="page ${panelOpen ? "panel-open" : ""}">
      <${Header} served=${served} texts=${texts} language=${language} panelOpen=${panelOpen} empty=${turns.length === 0}
        onClear=${() => { clear(); toComposer(); }} onPanel=${() => setPanelOpen(!panelOpen)} onLanguage=${speak} />
      <main>
        <div class="chat">
          <${Log} turns=${turns} answering=${answering} texts=${texts}>
            ${turns.length === 0 && html`
              <div class="welcome">
                <h2>${served ? texts.talkTo(served.id) : "…"}</h2>
                <p>${texts.purpose}</p>
                <p class="hint">${texts.keys}</p>
              </div>`}
            ${problem && html`
              <p class="problem" role="alert">
                ${explain(problem, texts, texts.problems.unreachable)}
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

function Header({ served, texts, language, panelOpen, empty, onClear, onPanel, onLanguage }) {
  const switchTo = language === "zh" ? "en" : "zh";
  return html`
    <header>
      <img src="playground/icon.svg" alt="" width="28" height="28" />
      <h1>tunegate <span>${texts.title}</span></h1>
      ${served && html`<p class="badge" title=${served.digest}><b>${served.id}</b> <code>${short(served.digest)}</code></p>`}
      <nav>
        <button type="button" onClick=${onClear} disabled=${empty}>${texts.newChat}</button>
        <button type="button" lang=${switchTo} aria-label="${texts.otherLanguage} ${LANGUAGES[switchTo]}"
          onClick=${() => onLanguage(switchTo)}>${LANGUAGES[switchTo]}</button>
        <button type="button" class="to-panel" aria-expanded=${panelOpen} aria-controls="panel"
          onClick=${onPanel}>${panelOpen ? texts.backToChat : texts.settings}</button>
      </nav>
    </header>`;
}

function announce(turn, texts) {
  if (turn?.state === "answering") return texts.answering;
  return turn?.state === "finished" ? texts.finished(turn.answer.text) : "";
}

document.body.replaceChildren();
render(html`<${App} />`, document.body);
