import type { FastifyJWTOptions, JWT } from '@fastify/jwt'
import jwt from '@fastify/jwt'
import type { FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify'

type Claims = Readonly<Record<string, unknown>>
type Done = (error: Error | null, claims?: Claims) => void
type VerifyRequest = (this: FastifyRequest, options: undefined, done: Done) => void

/** @fastify/jwt with one set of options. */
export interface Verifier {
  readonly jwt: JWT
  /** Verifies the token of a request by the key that the plugin's `secret` function returns for it. */
  readonly verifyRequest: (request: FastifyRequest) => Promise<Claims>
}

/**
 * Registers @fastify/jwt in a context of its own. Its decorators are not in the way of a user's plugin there, which may
 * register it as well. Requests are of other contexts: the function that verifies them is kept as it is decorated.
 */
export async function registerApart(fastify: FastifyInstance, options: FastifyJWTOptions): Promise<Verifier> {
  const { promise, resolve } = Promise.withResolvers<Verifier>()
  const plugin: FastifyPluginAsync = async (apart) => {
    const decorators = new Map<string | symbol, unknown>()
    const { decorateRequest } = apart
    Object.assign(apart, {
      decorateRequest(this: FastifyInstance, ...args: [string, unknown]) {
        decorators.set(...args)
        return Reflect.apply(decorateRequest, this, args)
      }
    })
    await apart.register(jwt, options)
    const verify = decorators.get('jwtVerify') as VerifyRequest
    // Without options: only so does the plugin keep one verifier for each key.
    resolve({ jwt: apart.jwt, verifyRequest: (request) => promised((done) => verify.call(request, undefined, done)) })
  }
  // Without a name, Fastify would look for one among all modules that are loaded.
  await fastify.register(Object.assign(plugin, { [Symbol.for('fastify.display-name')]: 'jingwei-jwt-verifier' }))
  return promise
}

function promised(code: (done: Done) => void): Promise<Claims> {
  return new Promise((resolve, reject) => {
    code((error, claims) => (error ? reject(error) : resolve(claims!)))
  })
}
