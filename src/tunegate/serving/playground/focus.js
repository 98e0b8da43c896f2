// Where the focus goes when what had it goes away.

/** Whether people type on glass, where the keyboard covers half of the page. */
export const onTouch = () => matchMedia("(pointer: coarse)").matches;

/** Move the focus to where the next message is written, where that brings no keyboard up. */
export function toComposer() {
  if (!onTouch()) document.getElementById("message").focus();
}

/** Do it once the page shows what was just set. */
export const later = (act) => setTimeout(act);
