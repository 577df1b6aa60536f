/**
 * A mesh plugin that signs every attempt, so that services can verify that a request comes from the gateway.
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
import type { Interceptor } from 'jingwei/plugin'
import { dropHeaders, withHeaders } from 'jingwei/plugin'

const own = ['x-gateway-attempt', 'x-gateway-signature'] as const

export function signature(secret: string, seconds: number, attempt: number, method: string, path: string): string {
  const text = `${seconds}.${attempt}.${method}.${path}`
  return `t=${seconds},v1=${createHmac('sha256', secret).update(text).digest('hex')}`
}

/** Signs an attempt. It runs once per attempt, so a retry gets its own number and time. */
export function requestSignature(secret: string): Interceptor {
  return (dispatch) => (opts, handler) => {
    const attempt = opts.call?.attempts ?? 1
    const signed = signature(secret, Math.floor(Date.now() / 1000), attempt, opts.method, opts.path)
    return dispatch(withHeaders(opts, { [own[0]]: String(attempt), [own[1]]: signed }), handler)
  }
}

export default async function signer(fastify: FastifyInstance, { secret }: { secret?: string }) {
  if (typeof secret !== 'string' || secret.length < 32) throw new Error('options.secret: at least 32 characters')
  fastify.mesh.use(requestSignature(secret), { per: 'attempt', name: 'request-signature' })

  // Clients' copies of these headers are dropped.
  fastify.addHook('onRoute', (route) => dropHeaders(route, own))
}
