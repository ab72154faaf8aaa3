/**
 * Where something listens or is to be reached: `unix:/path.sock` or `tcp:HOST:PORT`, IPv6 addresses in brackets. Pure:
 * it parses and formats, it neither resolves names nor touches the file system. A parsed endpoint formats back to an
 * equal one.
 */

export type Endpoint =
  | { readonly scheme: 'unix'; readonly path: string }
  | { readonly scheme: 'tcp'; readonly host: string; readonly port: number }

/** The kernel's sun_path holds 108 bytes with the closing zero; Node 20 cuts longer ones off without a word. */
export const SOCKET_PATH_BYTES_MAX = 107

const utf8 = new TextEncoder()

/** The endpoint, or one sentence that says what is wrong with the text. */
export function parseEndpoint(text: string): Endpoint | { readonly problem: string } {
  const colon = text.indexOf(':')
  const scheme = colon === -1 ? '' : text.slice(0, colon)
  const rest = text.slice(colon + 1)
  switch (scheme) {
    case 'unix':
      return parseUnix(text, rest)
    case 'tcp':
      return parseTcp(text, rest)
    case 'tls':
      return { problem: `'${text}': tls: is not served yet, use unix: or tcp: (on a network that you trust)` }
    default:
      return { problem: `'${text}' is not a URL of the form unix:/path.sock or tcp:HOST:PORT` }
  }
}

export function isEndpoint(parsed: Endpoint | { readonly problem: string }): parsed is Endpoint {
  return 'scheme' in parsed
}

export function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.scheme === 'unix') return `unix:${endpoint.path}`
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host
  return `tcp:${host}:${endpoint.port}`
}

/** True for addresses that only this machine can reach. */
export function isLoopback(endpoint: Endpoint): boolean {
  if (endpoint.scheme === 'unix') return true
  return (
    endpoint.host === 'localhost' || endpoint.host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(endpoint.host)
  )
}

function parseUnix(text: string, path: string): Endpoint | { readonly problem: string } {
  if (!path.startsWith('/')) return { problem: `'${text}' needs an absolute path: unix:/path.sock` }
  if (path.includes('\0')) return { problem: 'a socket path holds no zero byte' }
  const lengthBytes = utf8.encode(path).length
  if (lengthBytes > SOCKET_PATH_BYTES_MAX) {
    return {
      problem: `'${text}' has a path of ${lengthBytes} bytes; a socket's holds at most ${SOCKET_PATH_BYTES_MAX}`,
    }
  }
  return { scheme: 'unix', path }
}

function parseTcp(text: string, rest: string): Endpoint | { readonly problem: string } {
  const bracketed = /^\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]:(\d{1,5})$/.exec(rest)
  const plain = /^([^:[\]\s/]+):(\d{1,5})$/.exec(rest)
  const match = bracketed ?? plain
  const host = match?.[1]
  const port = Number(match?.[2])
  if (host === undefined) return { problem: `'${text}' is not of the form tcp:HOST:PORT (IPv6 as tcp:[::1]:PORT)` }
  if (port > 65_535) return { problem: `'${text}': there is no port ${port}` }
  return { scheme: 'tcp', host, port }
}
