// What the page keeps in the browser.

/** What was kept in this browser, or null; where storage is forbidden, nothing is kept. */
export function recall(storage, name) {
  try {
    return globalThis[storage].getItem(`tunegate.${name}`);
  } catch {
    return null;
  }
}

export function remember(storage, name, value) {
  try {
    globalThis[storage].setItem(`tunegate.${name}`, value);
  } catch {
    // It is for this page alone, then.
  }
}
