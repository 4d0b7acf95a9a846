/** An error travels as a header of the answer; a connection accepts 64 KiB of headers. */
const limit = 48 * 1024;

/** Shortens a text to fit into an answer's error: a note replaces its middle. */
export function fitTrailer(text: string): string {
  const whole = text.toWellFormed();
  let fitted = whole;
  for (let kept = limit; encodedLength(fitted) > limit; kept = Math.floor(kept / 2)) {
    const head = whole.slice(0, Math.floor(kept / 4)).toWellFormed();
    const tail = whole.slice(-Math.floor((kept * 3) / 4)).toWellFormed();
    fitted = `${head}\n[${whole.length - head.length - tail.length} characters are left out here]\n${tail}`;
  }
  return fitted;
}

function encodedLength(text: string): number {
  return encodeURI(text).length;
}
