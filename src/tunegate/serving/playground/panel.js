// Beside the conversation: what is sent with each request, and the exact request and answer of one turn.

import { html } from "./vendor/htm-preact.js";
import { Copy, originOf } from "./answer.js";
import { curl } from "./chat.js";

const DECODING = [
  { name: "temperature", min: 0, max: 2, step: 0.1 },
  { name: "top_p", min: 0, max: 1, step: 0.05 },
  { name: "max_tokens", min: 1, step: 1 },
  { name: "seed", step: 1 },
];

/** settings: `system`, `decoding` by field name (text, empty where it is left open) and `key`. */
export function Settings({ settings, texts, onChange }) {
  const decode = (name, value) => onChange({ ...settings, decoding: { ...settings.decoding, [name]: value } });
  return html`
    <section aria-labelledby="settings">
      <h2 id="settings">${texts.settings}</h2>
      <label>${texts.system}
        <textarea rows="2" placeholder=${texts.systemHint} value=${settings.system}
          onInput=${(event) => onChange({ ...settings, system: event.target.value })} />
      </label>
      <fieldset class="decoding" aria-describedby="decoding-hint">
        <legend>${texts.decoding}</legend>
        ${DECODING.map(({ name, ...range }) => html`
          <label><code>${name}</code>
            <input type="number" inputmode="decimal" ...${range} placeholder=${texts.byRelease}
              value=${settings.decoding[name]} onInput=${(event) => decode(name, event.target.value)} />
          </label>`)}
      </fieldset>
      <p class="hint" id="decoding-hint">${texts.decodingHint}</p>
      <label>${texts.key}
        <input id="key" type="password" autocomplete="off" spellcheck="false" aria-describedby="key-hint" value=${settings.key}
          onChange=${(event) => onChange({ ...settings, key: event.target.value.trim() })} />
      </label>
      <p class="hint" id="key-hint">${texts.keyHint}</p>
    </section>`;
}

/** The request of `turn` as it was sent, and what is known of its answer besides the text. */
export function Request({ turn, served, withKey, texts }) {
  const command = turn && curl(turn.body, withKey);
  return html`
    <section aria-labelledby="request">
      <h2 id="request">${texts.request}</h2>
      ${!turn && html`<p class="hint">${texts.noRequest}</p>`}
      ${turn && html`
        <pre id="curl" tabindex="0" aria-labelledby="request">${command}</pre>
        <p class="actions">
          <${Copy} key=${`curl ${turn.id}`} text=${command} label=${texts.copyCurl} texts=${texts} />
          <${Copy} key=${`json ${turn.id}`} text=${turn.body} label=${texts.copyJson} texts=${texts} />
        </p>
        <h3>${texts.answer}</h3>
        <dl>${facts(turn, served, texts).map(([name, value]) => html`<dt>${texts.facts[name]}</dt><dd>${value}</dd>`)}</dl>`}
    </section>`;
}

function facts({ answer, problem }, served, texts) {
  const { digest, name, step } = originOf(answer, served);
  const time = (milliseconds) => milliseconds && `${Math.round(milliseconds)} ms`;
  const found = {
    status: answer.status ?? problem?.status,
    model: answer.model,
    id: answer.id,
    version: digest && [name, digest].filter(Boolean).join(" "),
    step: step && answer.headers["tunegate-step"],
    finish: answer.finish,
    first: time(answer.firstText),
    whole: time(answer.milliseconds),
    tokens: answer.usage && texts.tokens(answer.usage),
  };
  return Object.entries(found).filter(([, value]) => value);
}
