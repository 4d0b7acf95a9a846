import { createHmac, randomBytes, scrypt, scryptSync, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { promisify } from "node:util";

/** Seconds for which somebody stays logged in. */
export const sessionSeconds = 3600;

/** Who is logged in, as it is carried around: nothing of it is kept here, so that any pod knows it. */
export interface Session {
  readonly token: string;
  /** What each form that changes something must carry. */
  readonly formToken: string;
}

const slowHash: (password: string, salt: string, length: number) => Promise<Buffer> = promisify(scrypt);

// The same for all pods: the password is the stack's own, and random unless somebody chose another.
const salt = "k3s-lab my-app session";
const keyBytes = 32;

const cookieName = "my-app-session";

/**
 * Sessions of the one who knows the admin's password. They are signed with a key that is made of it: all pods have the same,
 * and a new password ends all sessions.
 */
export class Sessions {
  readonly #key: Buffer;
  readonly #now: () => number;

  constructor(password: string, now: () => number = Date.now) {
    // Slow to make, so that nobody guesses the password by a session that was seen.
    this.#key = scryptSync(password, salt, keyBytes);
    this.#now = now;
  }

  /** Whether it is the password; takes as long whatever it is. */
  async isPassword(candidate: string): Promise<boolean> {
    return timingSafeEqual(await slowHash(candidate, salt, keyBytes), this.#key);
  }

  begin(): Session {
    const ends = Math.floor(this.#now() / 1000) + sessionSeconds;
    const said = `${ends}.${randomBytes(12).toString("base64url")}`;
    return this.#session(`${said}.${this.#sign("session", said)}`);
  }

  /** The session of a token, if it was made here and has not ended. */
  of(token: string): Session | undefined {
    const [ends = "", nonce = "", signature = ""] = token.split(".");
    if (!isSame(signature, this.#sign("session", `${ends}.${nonce}`))) return undefined;
    return Number(ends) * 1000 > this.#now() ? this.#session(token) : undefined;
  }

  /** The session of a browser's cookie. */
  ofCookie({ headers }: IncomingMessage): Session | undefined {
    for (const pair of (headers.cookie ?? "").split(";")) {
      const [name = "", token = ""] = pair.trim().split("=");
      const session = name === cookieName ? this.of(token) : undefined;
      if (session !== undefined) return session;
    }
    return undefined;
  }

  /** The session of a program, which sends its token itself: no other site's page can. */
  ofBearer({ headers }: IncomingMessage): Session | undefined {
    const [, token] = /^Bearer +(\S+)$/i.exec(headers.authorization ?? "") ?? [];
    return token === undefined ? undefined : this.of(token);
  }

  readonly isFormOf = ({ formToken }: Session, sent: unknown): boolean =>
    typeof sent === "string" && isSame(sent, formToken);

  #session(token: string): Session {
    return { token, formToken: this.#sign("form", token) };
  }

  #sign(purpose: string, text: string): string {
    return createHmac("sha256", this.#key).update(`${purpose}\n${text}`).digest("base64url");
  }
}

function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The Set-Cookie header of a session, or of its end. Behind TLS it never goes by http. */
export function cookie({ headers }: IncomingMessage, session: Session | undefined): string {
  const secure = headers["x-forwarded-proto"] === "https" ? "; Secure" : "";
  const [value, seconds] = session === undefined ? ["", 0] : [session.token, sessionSeconds];
  return `${cookieName}=${value}; Path=/login; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
}
