// Talking to the server, and not losing what it has not confirmed: marks wait in the browser until they are saved.

import { recall, remember } from "../playground/storage.js";

const AGAIN_MS = 1000;

/** What came instead of an answer; status 0 when none came. */
export class Problem extends Error {
  constructor(status, message = "") {
    super(message);
    this.status = status;
  }
}

/** The token that came with the address stays in this tab, and out of the address. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  remember("sessionStorage", "review-token", given);
  history.replaceState(null, "", location.pathname + location.search);
}

export const code = () => recall("localStorage", "review-code") ?? "";
export const keepCode = (value) => remember("localStorage", "review-code", value);

export async function call(path, body) {
  const token = recall("sessionStorage", "review-token");
  const headers = {
    "tunegate-reviewer": code(),
    ...(body && { "content-type": "application/json" }),
    ...(token && { authorization: `Bearer ${token}` }),
  };
  let response;
  try {
    response = await fetch(`api/${path}`, { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers, cache: "no-store" });
  } catch {
    throw new Problem(0);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, answer.error);
  return answer;
}

/** An id that nobody else chooses; crypto.randomUUID is missing where the page comes without TLS. */
export const freshId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Marks on their way, in order. `changed` gets how many wait and whether the server is away, `saved` each answer. */
export class Outbox {
  constructor(changed, saved, refused) {
    this.marks = JSON.parse(recall("localStorage", "review-outbox") ?? "[]");
    Object.assign(this, { changed, saved, refused, sending: null, timer: 0 });
    addEventListener("online", () => this.send());
  }

  add(mark) {
    this.marks.push({ ...mark, code: code() });
    this.keep();
    this.send();
  }

  keep() {
    remember("localStorage", "review-outbox", JSON.stringify(this.marks));
  }

  /** Send what waits; done when all is saved, or when the server is away. */
  send() {
    this.sending ??= this.sendAll().finally(() => { this.sending = null; });
    return this.sending;
  }

  async sendAll() {
    clearTimeout(this.timer);
    while (this.marks.length) {
      this.changed(this.marks.length, false);
      const { code: whose, ...mark } = this.marks[0];
      try {
        if (whose === code()) this.saved(await call("marks", mark));
      } catch (problem) {
        if (problem.status === 0 || problem.status >= 500 || problem.status === 403) { // it may be saved later
          this.changed(this.marks.length, true, problem);
          this.timer = setTimeout(() => this.send(), AGAIN_MS);
          return false;
        }
        this.refused(problem, mark);
      }
      this.marks.shift();
      this.keep();
    }
    this.changed(0, false);
    return true;
  }
}
