// The page: a name, then one item after the other.

import { html, render, useEffect, useState } from "../playground/vendor/htm-preact.js";
import { recall, remember } from "../playground/storage.js";
import { call, code, keepCode, takeToken } from "./desk.js";
import { Item } from "./item.js";
import { LANGUAGES, TEXTS, preferred } from "./language.js";

function App() {
  const [language, setLanguage] = useState(() => recall("localStorage", "language") ?? preferred());
  const [about, setAbout] = useState(null);
  const [problem, setProblem] = useState(null);
  const texts = TEXTS[language];
  const load = async () => {
    try {
      setAbout(code() ? await call("review") : { reviewer: "" });
      setProblem(null);
    } catch (failed) {
      if (failed.status === 401) setAbout({ reviewer: "" });
      else setProblem(failed);
    }
  };
  useEffect(() => { load(); }, []);
  useEffect(() => {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    document.title = `${texts.title} · tunegate`;
  }, [language]);
  const speak = (chosen) => {
    setLanguage(chosen);
    remember("localStorage", "language", chosen);
  };
  return html`
    <div class="page review">
      <${Header} about=${about} texts=${texts} language=${language} onLanguage=${speak} />
      ${problem && html`<p class="problem" role="alert">${problem.message || texts.unreachable} <button type="button" onClick=${load}>${texts.tryAgain}</button></p>`}
      ${about && !problem && (about.reviewer
        ? html`<${Item} about=${about} texts=${texts} onLost=${load} />`
        : html`<${Join} texts=${texts} onJoined=${load} />`)}
    </div>`;
}

function Header({ about, texts, language, onLanguage }) {
  const switchTo = language === "zh" ? "en" : "zh";
  return html`
    <header>
      <img src="playground/icon.svg" alt="" width="28" height="28" />
      <h1>tunegate <span>${texts.title}</span></h1>
      ${about?.reviewer && html`<p class="badge" title=${texts.codeHint}><b>${about.reviewer}</b> <code>${code()}</code></p>`}
      <nav>
        <button type="button" lang=${switchTo} aria-label="${texts.otherLanguage} ${LANGUAGES[switchTo]}"
          onClick=${() => onLanguage(switchTo)}>${LANGUAGES[switchTo]}</button>
      </nav>
    </header>`;
}

function Join({ texts, onJoined }) {
  const [name, setName] = useState("");
  const [given, setGiven] = useState("");
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try {
      const joined = await call("join", { name, code: given.trim() });
      keepCode(joined.code);
      onJoined();
    } catch (failed) {
      setProblem(failed);
    }
  };
  return html`
    <main class="join">
      <form onSubmit=${submit}>
        <h2>${texts.welcome}</h2>
        <p>${texts.purpose}</p>
        <label>${texts.name}<input value=${name} maxlength="40" autocomplete="name" onInput=${(event) => setName(event.target.value)} /></label>
        ${problem?.status === 409 && html`
          <label>${texts.code}<input value=${given} autocomplete="off" onInput=${(event) => setGiven(event.target.value)} /></label>`}
        ${problem && html`<p class="problem" role="alert">${problem.status === 409 ? texts.taken : problem.message || texts.unreachable}</p>`}
        <button class="primary" disabled=${!name.trim()}>${texts.begin}</button>
      </form>
    </main>`;
}

takeToken();
document.body.replaceChildren();
render(html`<${App} />`, document.body);
