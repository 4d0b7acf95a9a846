import { createHmac, randomBytes, scrypt, scryptSync, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { promisify } from "node:util";

/** Lifetime of a session in seconds. */
export const sessionSeconds = 3600;

/** A session's claims. They travel in the token and are stored nowhere, so that any pod can check them. */
export interface Session {
  readonly token: string;
  /** CSRF token that every form with a change must carry. */
  readonly formToken: string;
}

const slowHash: (password: string, salt: string, length: number) => Promise<Buffer> = promisify(scrypt);

// The same for all pods: the password belongs to the stack, and is random unless somebody chose another.
const salt = "k3s-lab my-app session";
const keyBytes = 32;

const cookieName = "my-app-session";

/**
 * Sessions of the admin. They are signed with a key that is derived from the password: all pods have the same, and a new
 * password ends all sessions.
 */
export class Sessions {
  readonly #key: Buffer;
  readonly #now: () => number;

  constructor(password: string, now: () => number = Date.now) {
    // A slow derivation, so that nobody can guess the password from a captured session.
    this.#key = scryptSync(password, salt, keyBytes);
    this.#now = now;
  }

  /** Whether the password is correct; takes the same time for any input. */
  async isPassword(candidate: string): Promise<boolean> {
    return timingSafeEqual(await slowHash(candidate, salt, keyBytes), this.#key);
  }

  begin(): Session {
    const ends = Math.floor(this.#now() / 1000) + sessionSeconds;
    const said = `${ends}.${randomBytes(12).toString("base64url")}`;
    return this.#session(`${said}.${this.#sign("session", said)}`);
  }

  /** The session of a token, if it is genuine and has not expired. */
  of(token: string): Session | undefined {
    const [ends = "", nonce = "", signature = ""] = token.split(".");
    if (!isSame(signature, this.#sign("session", `${ends}.${nonce}`))) return undefined;
    return Number(ends) * 1000 > this.#now() ? this.#session(token) : undefined;
  }

  /** The session in a browser's cookie. */
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

/** The Set-Cookie header that starts or ends a session. Behind TLS it is never sent by http. */
export function cookie({ headers }: IncomingMessage, session: Session | undefined): string {
  const secure = headers["x-forwarded-proto"] === "https" ? "; Secure" : "";
  const [value, seconds] = session === undefined ? ["", 0] : [session.token, sessionSeconds];
  return `${cookieName}=${value}; Path=/login; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
}
