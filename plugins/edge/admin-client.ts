/** Requests of commands to the admin port of a running gateway. */
import type { Config } from '../../config/schema.ts'
import { http } from '../node-http.ts'

const timeoutMs = 10_000
/** Largest response that is read. */
const maxBytes = 16 * 1024 * 1024

/** Sends a request to the admin port that `--admin` or the configuration names, and returns the JSON of its response. */
export async function askAdmin(
  method: 'GET' | 'POST',
  path: string,
  admin: string,
  load: () => Promise<Config>
): Promise<unknown> {
  const base = admin === '' ? baseOf(await load()) : admin
  const url = URL.parse(path, base)
  if (url?.protocol !== 'http:')
    throw new Error(`--admin ${admin}: expected a URL such as http://127.0.0.1:8081, of the port that "admin" names`)
  const { status, text } = await respondOf(method, url).catch((cause: Error) => {
    throw new Error(`no response of the admin port ${url.origin}: ${cause.message}; does the gateway run?`, { cause })
  })
  const body = parsed(text)
  if (status === 200 && body !== null) return body
  const message = (body as { message?: unknown } | null)?.message
  throw new Error(`the admin port ${url.origin} responds ${status}${typeof message === 'string' ? `: ${message}` : ''}`)
}

/** Returns the URL of the admin port. */
function baseOf({ admin }: Config): string {
  if (admin === false) throw new Error('the configuration has admin: false; this command needs the admin port')
  if (admin.port === 0)
    throw new Error('the configuration has admin.port: 0, any free port; name the URL by --admin http://127.0.0.1:PORT')
  const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[admin.host] ?? admin.host
  return `http://${host.includes(':') ? `[${host}]` : host}:${admin.port}`
}

async function respondOf(method: string, url: URL): Promise<{ status: number; text: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>()
  const sent = http.request(url, { method, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
    const chunks: Buffer[] = []
    let bytes = 0
    response.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > maxBytes) response.destroy(new Error('the response is too large'))
      else chunks.push(chunk)
    })
    response.on('end', () => resolve({ status: response.statusCode!, text: Buffer.concat(chunks).toString() }))
    response.on('error', reject)
  })
  sent.on('error', reject).end()
  return promise
}

/** Returns the object of a JSON text; null for any other text. */
function parsed(text: string): object | null {
  try {
    const body: unknown = JSON.parse(text)
    return typeof body === 'object' ? body : null
  } catch {
    return null
  }
}
