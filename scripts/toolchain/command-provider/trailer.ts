/** An error travels as a header of its answer; a connection takes 64 KiB of those. */
const limit = 48 * 1024;

/** A text that fits into an answer's error: where it is too long, its middle is left out, and that is said. */
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
