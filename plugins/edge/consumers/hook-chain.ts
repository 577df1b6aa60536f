/**
 * Hooks of several concerns in one phase of a route, for the options of the consumer, as one hook of Fastify. Most requests
 * have no consumer with options of its own: for them it takes one look at `request.consumer`, however many concerns there are.
 */
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { asError, isThenable } from '../../thrown.ts'
import type { Phase } from '../attach.ts'
import { attach } from '../attach.ts'
import { noOptions } from './consumer.ts'

type Arguments = readonly unknown[]
/** A hook; the type of its arguments depends on the phase. */
export type AnyHook = (this: unknown, request: FastifyRequest, ...rest: never[]) => unknown
type Done = (error?: unknown, payload?: unknown) => void

/** The hook of one concern. */
export interface ChainedHook {
  /** Key of the concern under `edge`. */
  readonly key: string
  /** Hook for the options of the route; undefined if there is none. */
  readonly usual: AnyHook | undefined
  /** Returns the hook for a consumer's options, false included; undefined if there is none. */
  readonly hookFor: (options: unknown) => AnyHook | undefined
}

/** Position of the callback among the arguments of a hook. */
const donePositions: Readonly<Record<Phase, 1 | 2 | 3>> = {
  onRequest: 2,
  preParsing: 3,
  preValidation: 2,
  preHandler: 2,
  preSerialization: 3,
  onSend: 3,
  onResponse: 2,
  onError: 3,
  onTimeout: 2,
  onRequestAbort: 1
}

/** Phases in which a hook may replace the payload. */
const replacing: readonly Phase[] = ['preParsing', 'preSerialization', 'onSend']
/** Phases in which no hook runs any more once a hook has responded. */
const endedByResponse: readonly Phase[] = ['onRequest', 'preParsing', 'preValidation', 'preHandler']

class Chain {
  readonly #phase: Phase
  readonly #hooks: ChainedHook[] = []
  readonly #usual: AnyHook[] = []

  /** The hook of Fastify. */
  readonly run: AnyHook

  constructor(phase: Phase) {
    this.#phase = phase
    this.run = this.#runner(donePositions[phase]) as AnyHook
  }

  add(...hooks: readonly ChainedHook[]): void {
    this.#hooks.push(...hooks)
    for (const { usual } of hooks) if (usual !== undefined) this.#usual.push(usual)
  }

  /** Its arguments are named, because a rest parameter would make an array for each request. */
  #runner(at: 1 | 2 | 3) {
    const chain = this
    return function consumerOptions(
      this: unknown,
      request: FastifyRequest,
      second: unknown,
      third: unknown,
      fourth: unknown
    ): unknown {
      const done = (at === 3 ? fourth : at === 2 ? third : second) as Done
      let hooks: readonly AnyHook[]
      try {
        hooks = chain.#hooksFor(request)
      } catch (error) {
        return done(error)
      }
      if (hooks.length === 0) return done()
      if (hooks.length > 1) return chain.#runAll(hooks, this, request, [second, third, fourth].slice(0, at))
      const hook = hooks[0] as (...all: unknown[]) => unknown
      if (at === 3) return hook.call(this, request, second, third, fourth)
      return at === 2 ? hook.call(this, request, second, third) : hook.call(this, request, second)
    }
  }

  #hooksFor({ consumer }: FastifyRequest): readonly AnyHook[] {
    if (consumer === null || consumer.edge === noOptions) return this.#usual
    const { edge } = consumer
    return this.#hooks.flatMap(({ key, usual, hookFor }) => {
      const own: unknown = Reflect.get(edge, key)
      return (own === undefined ? usual : hookFor(own)) ?? []
    })
  }

  /** Runs the hooks one after the other, as Fastify runs hooks. */
  #runAll(hooks: readonly AnyHook[], self: unknown, request: FastifyRequest, given: Arguments): void {
    const rest = [...given]
    const done = rest.pop() as Done
    const isReplacing = replacing.includes(this.#phase)
    const reply = endedByResponse.includes(this.#phase) ? (given[0] as FastifyReply) : null
    let index = 0
    const next: Done = (error, payload) => {
      if (error !== undefined && error !== null) return done(error)
      if (reply?.sent) return
      if (isReplacing && payload !== undefined) rest[1] = payload
      if (index === hooks.length) return isReplacing ? done(undefined, rest[1]) : done()
      let returned: unknown
      try {
        returned = Reflect.apply(hooks[index++]!, self, [request, ...rest, next])
      } catch (thrown) {
        return done(thrown)
      }
      if (isThenable(returned)) {
        returned.then(
          (payload) => next(undefined, payload),
          (thrown) => done(asError(thrown))
        )
      }
    }
    next()
  }
}

/** The chains of one route, while its concerns attach their hooks. */
class RouteChains {
  readonly #route: RouteOptions
  readonly #last: { [P in Phase]?: Chain } = {}
  readonly #waiting: { [P in Phase]?: readonly ChainedHook[] } = {}

  constructor(route: RouteOptions) {
    this.#route = route
  }

  add(phase: Phase, hook: ChainedHook, mayWait: boolean): void {
    const waiting = this.#waiting[phase] ?? []
    if (mayWait && !this.#isLast(phase)) {
      this.#waiting[phase] = [...waiting, hook]
      return
    }
    delete this.#waiting[phase]
    this.#open(phase).add(...waiting, hook)
  }

  attachWaiting(phases: readonly string[]): void {
    for (const [phase, hooks] of Object.entries(this.#waiting)) {
      if (!phases.includes(phase)) continue
      delete this.#waiting[phase as Phase]
      this.#open(phase as Phase).add(...hooks)
    }
  }

  /** Returns whether the last hook of a phase is a chain. */
  #isLast(phase: Phase): boolean {
    const chain = this.#last[phase]
    if (chain === undefined) return false
    const hooks: unknown = this.#route[phase]
    return (Array.isArray(hooks) ? hooks.at(-1) : hooks) === chain.run
  }

  /** Returns the chain at the end of a phase. */
  #open(phase: Phase): Chain {
    if (this.#isLast(phase)) return this.#last[phase]!
    const chain = new Chain(phase)
    attach(this.#route, phase, chain.run as never)
    this.#last[phase] = chain
    return chain
  }
}

const chains = new WeakMap<RouteOptions, RouteChains>()

/**
 * Attaches the hook of a concern to a route, in the order of these calls. One that may wait joins the chain of the next
 * concern, so that a route without the concern has no further chain.
 */
export function attachChained(route: RouteOptions, phase: Phase, hook: ChainedHook, mayWait: boolean): void {
  let ofRoute = chains.get(route)
  if (ofRoute === undefined) {
    ofRoute = new RouteChains(route)
    chains.set(route, ofRoute)
  }
  ofRoute.add(phase, hook, mayWait)
}

const allPhases = Object.keys(donePositions)

/** Attaches the hooks that wait: another hook of one of these phases follows. */
export const attachWaiting = (route: RouteOptions, phases: readonly string[] = allPhases): void =>
  chains.get(route)?.attachWaiting(phases)

/** Attaches the hooks that wait: no concern follows. */
export function endChains(route: RouteOptions): void {
  attachWaiting(route)
  chains.delete(route)
}
