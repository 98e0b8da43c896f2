// Talking to the server: what is asked, how its stream is read, and what went wrong. Knows nothing of the page.

/** What came instead of an answer, or broke it off. status: 0 when no answer, or no end of one, came. */
export class Problem extends Error {
  constructor(status, message = "", retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The body of a request, byte for byte. Decoding that is left open is the release's. */
export function write(model, turns, question, settings, user) {
  const messages = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  for (const turn of turns.filter((turn) => turn.answer.text)) {
    messages.push({ role: "user", content: turn.question }, { role: "assistant", content: turn.answer.text });
  }
  messages.push({ role: "user", content: question });
  const decoding = Object.entries(settings.decoding).filter(([, value]) => value !== "");
  const fields = Object.fromEntries(decoding.map(([name, value]) => [name, Number(value)]));
  const stream = { stream: true, stream_options: { include_usage: true } };
  return JSON.stringify({ model, messages, ...fields, ...stream, user }, null, 2);
}

/** The same request for a shell. The key stays out of it. */
export function curl(body, withKey) {
  const url = new URL("v1/chat/completions", document.baseURI);
  const lines = [`curl -N ${quote(url.href)}`, "  -H 'content-type: application/json'"];
  if (withKey) lines.push('  -H "authorization: Bearer $API_KEY"');
  return [...lines, `  --data-raw ${quote(body)}`].join(" \\\n");
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Which model and version is served. Raises Problem, also while the model is not ready to answer. */
export async function served(key) {
  await call("v2/health/ready", "");
  const listing = await (await call("v1/models", key)).json();
  return listing.data[0];
}

/** Keep a verdict; says whether it is `accepted`, `amended` one of before, or was a `repeat` of it. */
export async function judge(verdict, key) {
  const response = await call("v1/feedback", key, { method: "POST", body: JSON.stringify(verdict) });
  return (await response.json()).status;
}

/** Ask, and give the answer as far as it is known, again and again until it is whole. */
export async function* ask(body, key, signal) {
  const began = performance.now();
  const response = await call("v1/chat/completions", key, { method: "POST", body, signal });
  let answer = { ...NOTHING, status: response.status, headers: Object.fromEntries(response.headers) };
  yield answer;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") break;
    answer = fold(answer, parse(data));
    answer.milliseconds = performance.now() - began;
    if (answer.text || answer.reasoning) answer.firstText ??= answer.milliseconds;
    yield answer;
  }
  if (!answer.finish) throw new Problem(0);
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Problem(0);
  }
}

/** An answer before its first chunk. */
export const NOTHING = { text: "", reasoning: "", calls: [], steps: [], sources: [], cited: null };

/** The answer with one more chunk. Raises Problem for one that reports an error. */
export function fold(answer, chunk) {
  if (chunk.error) throw new Problem(0, chunk.error.message ?? String(chunk.error));
  const choice = chunk.choices?.[0] ?? {};
  const delta = choice.delta ?? {};
  const { step, sources, cited } = chunk.tunegate ?? {};
  return {
    ...answer,
    id: chunk.id,
    model: chunk.model,
    text: answer.text + (delta.content ?? ""),
    reasoning: answer.reasoning + (delta.reasoning_content ?? ""),
    calls: (delta.tool_calls ?? []).reduce(addCall, answer.calls),
    steps: step ? [...answer.steps, step] : answer.steps,
    sources: sources ?? (delta.annotations ?? []).reduce(addSource, answer.sources),
    cited: cited ?? answer.cited,
    finish: choice.finish_reason ?? answer.finish,
    usage: chunk.usage ?? answer.usage,
  };
}

/** An engine's own citation. Those of our sources, which have numbers, are in the text already. */
function addSource(sources, { url_citation: found }) {
  return !found || sources.some((source) => source.number) ? sources : [...sources, { title: found.title, uri: found.url }];
}

function addCall(calls, { index = 0, function: piece = {} }) {
  const call = calls[index] ?? { name: "", arguments: "" };
  const whole = { name: call.name + (piece.name ?? ""), arguments: call.arguments + (piece.arguments ?? "") };
  return Object.assign([...calls], { [index]: whole });
}

/** The data of each server-sent event. Lines end in CR, LF or CRLF, and in nothing else that Unicode knows. */
export async function* events(stream) {
  let rest = "";
  let data = [];
  for await (const text of pieces(stream)) {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      if (line !== "" || data.length === 0) continue;
      yield data.join("\n");
      data = [];
    }
  }
}

async function* pieces(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem(0);
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function call(path, key, options = {}) {
  const headers = { ...(options.body && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem(0);
  }
  if (response.ok) return response;
  const reason = await response.json().catch(() => ({}));
  throw new Problem(response.status, reason.error?.message ?? "", Number(response.headers.get("retry-after")) || 0);
}
