import type { FastifyJWTOptions, JWT, VerifyOptions } from '@fastify/jwt'
import type { FastifyInstance, FastifyPluginAsync, FastifyPluginCallback, FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import { systemClock } from '../../../clock.ts'
import { onFirstUse } from '../../../on-first-use.ts'

const jwtPlugin = onFirstUse<FastifyPluginCallback<FastifyJWTOptions>>('@fastify/jwt')

type Claims = Readonly<Record<string, unknown>>
type Done = (error: Error | null, claims?: Claims) => void
/** Options of one verification, in place of those of the registration. */
interface At {
  readonly clockTimestamp: number
}
type VerifyRequest = (this: FastifyRequest, options: At | undefined, done: Done) => void

/** @fastify/jwt with one set of options. */
export interface Verifier {
  /** Returns the claims of a token, if all tokens have one key. */
  readonly verify: (token: string) => Claims
  /** Verifies the token of a request by the key that the plugin's `secret` function returns for it. */
  readonly verifyRequest: (request: FastifyRequest) => Promise<Claims>
}

/**
 * Registers @fastify/jwt in a context of its own, so that its decorators do not collide with those of a user's plugin that
 * registers it, too. Requests belong to other contexts, so the decorator that verifies requests is captured.
 */
export async function registerIsolated(
  fastify: FastifyInstance,
  options: FastifyJWTOptions,
  clock: Clock
): Promise<Verifier> {
  const { promise, resolve } = Promise.withResolvers<Verifier>()
  const plugin: FastifyPluginAsync = async (isolated) => {
    const decorators = new Map<string | symbol, unknown>()
    const { decorateRequest } = isolated
    Object.assign(isolated, {
      decorateRequest(this: FastifyInstance, ...args: [string, unknown]) {
        decorators.set(...args)
        return Reflect.apply(decorateRequest, this, args)
      }
    })
    await isolated.register(jwtPlugin(), options)
    const verify = decorators.get('jwtVerify') as VerifyRequest
    // No options with the system's clock, since only then the plugin caches one verifier per key.
    const at = () => (clock === systemClock ? undefined : { clockTimestamp: Math.round(clock.date()) })
    resolve({
      verify: (token) => verifyAt(isolated.jwt, token, at()),
      verifyRequest: (request) => promised((done) => verify.call(request, at(), done))
    })
  }
  // Named, because Fastify otherwise searches all loaded modules for a name.
  await fastify.register(Object.assign(plugin, { [Symbol.for('fastify.display-name')]: 'jingwei-jwt-verifier' }))
  return promise
}

function verifyAt(jwt: JWT, token: string, at: At | undefined): Claims {
  return at === undefined ? jwt.verify<Claims>(token) : jwt.verify<Claims>(token, at as Partial<VerifyOptions>)
}

function promised(code: (done: Done) => void): Promise<Claims> {
  return new Promise((resolve, reject) => {
    code((error, claims) => (error ? reject(error) : resolve(claims!)))
  })
}
