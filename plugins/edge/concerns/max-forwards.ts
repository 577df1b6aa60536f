import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { isSecretField } from '../../../config/credentials.ts'
import type { Config } from '../../../config/schema.ts'
import { attach } from '../attach.ts'

/** Decrements `Max-Forwards` on OPTIONS and TRACE, and responds to such requests when it is 0 (RFC 9110, 7.6.2). */
export default fp<Config>(
  async (fastify) => {
    fastify.addHook('onRoute', (routeOptions) => {
      const methods = [routeOptions.method].flat()
      const { config } = routeOptions
      // A route for preflights forwards no request.
      if (config?.route === undefined || config.preflightFor !== undefined) return
      if (!methods.includes('OPTIONS') && !methods.includes('TRACE')) return
      const allow = methods.join(', ')
      attach(routeOptions, 'onRequest', (request, reply, done) => {
        const { method } = request.raw
        if (method !== 'OPTIONS' && method !== 'TRACE') return done()
        const left = request.raw.headers['max-forwards']
        if (typeof left !== 'string' || !/^\d+$/.test(left)) return done()
        if (Number(left) > 0) {
          countDown(request.raw.rawHeaders, Math.min(Number(left) - 1, largestValue))
          done()
          return
        }
        request.isOwnResponse = true
        if (method === 'TRACE') reflect(request, reply)
        else reply.code(204).header('allow', allow).send()
      })
    })
  },
  { name: 'jingwei-max-forwards', fastify: '5.x' }
)

/** Largest value that is sent: the next server may not parse larger numbers. */
const largestValue = 2 ** 31 - 1

function countDown(rawHeaders: string[], left: number): void {
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]!.toLowerCase() === 'max-forwards') rawHeaders[i + 1] = String(left)
  }
}

/** Responds to TRACE with the request, without its secrets, which a script in a browser could read (RFC 9110, 9.3.8). */
function reflect({ raw }: FastifyRequest, reply: FastifyReply): void {
  const lines = [`TRACE ${raw.url} HTTP/${raw.httpVersion}`]
  for (let i = 0; i < raw.rawHeaders.length; i += 2) {
    const name = raw.rawHeaders[i]!
    if (!isSecretField(name) && !name.startsWith(':')) lines.push(`${name}: ${raw.rawHeaders[i + 1]}`)
  }
  reply
    .code(200)
    .type('message/http')
    .send(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'))
}
