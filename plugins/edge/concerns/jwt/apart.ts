import type { FastifyJWTOptions, JWT, VerifyOptions } from '@fastify/jwt'
import type { FastifyInstance, FastifyPluginAsync, FastifyPluginCallback, FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import { systemClock } from '../../../clock.ts'
import { onFirstUse } from '../../../on-first-use.ts'

const jwtPlugin = onFirstUse<FastifyPluginCallback<FastifyJWTOptions>>('@fastify/jwt')

type Claims = Readonly<Record<string, unknown>>
type Done = (error: Error | null, claims?: Claims) => void
/** Options that differ from those that the plugin was registered with. */
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
 * Registers @fastify/jwt in a context of its own. Its decorators are not in the way of a user's plugin there, which may
 * register it as well. Requests are of other contexts: the function that verifies them is kept as it is decorated.
 */
export async function registerApart(
  fastify: FastifyInstance,
  options: FastifyJWTOptions,
  clock: Clock
): Promise<Verifier> {
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
    await apart.register(jwtPlugin(), options)
    const verify = decorators.get('jwtVerify') as VerifyRequest
    // Without options by the system's clock: only so does the plugin keep one verifier for each key.
    const at = () => (clock === systemClock ? undefined : { clockTimestamp: Math.round(clock.date()) })
    resolve({
      verify: (token) => verifyAt(apart.jwt, token, at()),
      verifyRequest: (request) => promised((done) => verify.call(request, at(), done))
    })
  }
  // Without a name, Fastify would look for one among all modules that are loaded.
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
