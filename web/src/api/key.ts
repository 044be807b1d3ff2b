/** What an API key says of who uses it. */

/** The `sub` of a JWT (RFC 7519 §4.1.2); empty where there is none. Whether it is true is for the server to say. */
export function subjectOf(token: string): string {
  try {
    const claims = token.split(".")[1] ?? "";
    const bytes = Uint8Array.from(atob(claims.replaceAll("-", "+").replaceAll("_", "/")), (byte) => byte.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown };
    return typeof sub === "string" ? sub : "";
  } catch {
    return "";
  }
}
