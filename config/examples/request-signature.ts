/**
 * A mesh plugin: signs every attempt, so that a service can tell the gateway's requests from others'.
 *
 *   x-gateway-attempt:    number of the attempt, from 1
 *   x-gateway-signature:  t=SECONDS,v1=HMAC-SHA256 of "SECONDS.ATTEMPT.METHOD.PATH", in hex
 *
 *   plugins:
 *     - path: ./request-signature.ts
 *       options: { secret: "${SIGNING_SECRET}" }
 */
import { createHmac } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Interceptor } from '../../plugins/mesh/core/types.ts'

const own = ['x-gateway-attempt', 'x-gateway-signature']

export function signature(secret: string, seconds: number, attempt: number, method: string, path: string): string {
  const text = `${seconds}.${attempt}.${method}.${path}`
  return `t=${seconds},v1=${createHmac('sha256', secret).update(text).digest('hex')}`
}

/** Once per attempt: a retry gets its own number and time. */
export function requestSignature(secret: string): Interceptor {
  return (dispatch) => (opts, handler) => {
    const attempt = opts.call?.attempts ?? 1
    const signed = signature(secret, Math.floor(Date.now() / 1000), attempt, opts.method, opts.path)
    // A copy, since the next attempt starts from the same headers.
    const headers = [...pairs(opts.headers), own[0]!, String(attempt), own[1]!, signed]
    return dispatch({ ...opts, headers }, handler)
  }
}

/** undici takes headers as a flat list, which is what the edge sends, as an object, or as pairs. */
function pairs(headers: Parameters<ReturnType<Interceptor>>[0]['headers']): string[] {
  if (headers === null || headers === undefined) return []
  if (Array.isArray(headers)) return headers.map(String)
  const entries = Symbol.iterator in headers ? [...headers] : Object.entries(headers)
  return entries.flatMap(([name, value]) => [value ?? []].flat().flatMap((item) => [String(name), String(item)]))
}

export default async function signer(fastify: FastifyInstance, { secret }: { secret?: string }) {
  if (typeof secret !== 'string' || secret.length < 32) throw new Error('options.secret: at least 32 characters')
  fastify.mesh.use(requestSignature(secret), { per: 'attempt', name: 'request-signature' })

  // A client's own copies of these headers never reach the service.
  fastify.addHook('onRoute', (routeOptions) => {
    const dropHeaders = [...(routeOptions.config?.dropHeaders ?? []), ...own]
    routeOptions.config = { ...routeOptions.config, dropHeaders }
  })
}
