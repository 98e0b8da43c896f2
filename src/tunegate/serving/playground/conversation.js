// Which model is served, and the turns of the conversation with it.

import { useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { NOTHING, Problem, ask, served as askServed, write } from "./chat.js";
import { recall, remember } from "./storage.js";

const ASK_AGAIN_MILLISECONDS = 2000;
const REDRAW_MILLISECONDS = 40; // 25 pictures a second, however quick the tokens come

/** Which model is served: asked anew with each key, and until a server that is away or not ready answers. */
export function useServed(key) {
  const [found, setFound] = useState({ served: null, problem: null });
  useEffect(() => {
    let current = true;
    let waiting = 0;
    const attempt = async () => {
      const result = await askServed(key).then((served) => ({ served, problem: null }), (problem) => ({ served: null, problem }));
      if (!current) return;
      setFound(result);
      if ([0, 503].includes(result.problem?.status)) waiting = setTimeout(attempt, ASK_AGAIN_MILLISECONDS);
    };
    attempt();
    return () => { current = false; clearTimeout(waiting); };
  }, [key]);
  return found;
}

/** The turns so far, and what can be done with them. */
export function useConversation(served, settings) {
  const [turns, setTurns] = useState([]);
  const underWay = useRef(null); // the answer under way
  const answering = turns.at(-1)?.state === "answering";
  const stop = () => underWay.current?.abort();

  const start = async (earlier, question) => {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    const body = write(served.id, earlier, question, settings, visitor());
    const change = (fields) => setTurns((turns) => turns.map((turn) => (turn.id === id ? { ...turn, ...fields } : turn)));
    const control = (underWay.current = new AbortController());
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

/** One name for this browser, so that of one person's verdicts no more count than of another's. */
function visitor() {
  const name = recall("localStorage", "visitor") ?? `playground-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  remember("localStorage", "visitor", name);
  return name;
}
